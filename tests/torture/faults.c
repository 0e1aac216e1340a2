/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Makes one call of the C library fail, or kills the process at it: LD_PRELOAD=faults.so, with the control page, which
 * rig.py writes, in the file that VMCOREDD_FAULTS names.
 *
 * strace -e inject counts for each thread, and which thread of the service does what is not the same in two runs; and
 * it does not know which file is meant. Here a step is a call of any thread for a file below the control page's
 * prefix, or for memory, a thread, a process, a descriptor. The target is counted among the steps that match its
 * pattern: how often a thread looks at a file while another program writes it depends on the time that this takes.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OFF, COUNT, FAIL, SHORT, KILL, KILL_AFTER };	/* rig.Mode */
enum { ENTRIES = 4096, TEXT = 160, LARGE = 16384 };

static struct control {
	_Atomic int pid, mode, step, target, error, alike, hits;
	_Atomic unsigned long kinds;	/* those that fail behind the target, as bits; 0: the target alone */
	_Atomic unsigned long ignored;	/* those that are no steps */
	char prefix[256], pattern[TEXT], hit[TEXT], log[ENTRIES][TEXT];
} *control;

/* rig.KINDS */
enum { OPEN, WRITE, READ, SYNC, LINK, RENAME, UNLINK, TRUNCATE, ALLOCATE, MEMFD, CONTROL, LOCK, MKDIR, STATFS, STAT,
	LIST, THREAD, FORK, PIPE, MAP, COPY, MEMORY, CLOSE, SEEK };
static const char *const names[] = { "open", "write", "read", "fsync", "link", "rename", "unlink", "ftruncate",
	"fallocate", "memfd_create", "fcntl", "flock", "mkdir", "statvfs", "stat", "readdir", "pthread_create", "fork",
	"pipe", "mmap", "copy", "malloc", "close", "lseek" };

static __thread int inside;

__attribute__((constructor)) static void start(void)
{
	const char *path = getenv("VMCOREDD_FAULTS");
	int fd = path ? (int)syscall(SYS_open, path, O_RDWR | O_CLOEXEC) : -1;
	int expected = 0;
	if (fd < 0)
		return;
	struct control *page = (void *)syscall(SYS_mmap, NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0L);
	syscall(SYS_close, fd);
	/* The programs that the service runs are not meant. */
	if (atomic_compare_exchange_strong(&page->pid, &expected, getpid()))
		control = page;
}

/* Writes what dirfd and path name into text; false where that is none of ours. */
static int resolve(int dirfd, const char *path, char *text)
{
	char link[64];
	ssize_t size = 0;
	if (path && path[0] == '/') {
		int fd;
		if (sscanf(path, "/proc/self/fd/%d", &fd) == 1)
			return resolve(fd, NULL, text);
		snprintf(text, TEXT, "%s", path);
	} else {
		snprintf(link, sizeof link, "/proc/self/fd/%d", dirfd);
		size = syscall(SYS_readlink, link, text, TEXT - 1);
		if (size < 0)
			return 0;
		text[size] = 0;
		if (path)
			snprintf(text + size, TEXT - size, "/%s", path);
	}
	return !strncmp(text, control->prefix, strlen(control->prefix)) || !strncmp(text, "/memfd:", 7) ||
		!strcmp(text, "/proc/sys/kernel/random/boot_id") || !strcmp(text, "/proc/meminfo");
}

/* Returns an errno, -1 for a short transfer, 0 to go on, -2 to go on and die. */
static int next_step(int kind, int dirfd, const char *path, int anything)
{
	char text[TEXT] = "";
	int action = 0, saved = errno;
	if (!control || inside || control->mode == OFF || control->pid != getpid() ||
	    control->ignored >> kind & 1)
		return 0;
	inside = 1;
	if (anything || resolve(dirfd, path, text)) {
		char call[TEXT];
		snprintf(call, TEXT, "%s %.140s", names[kind], text);
		int step = atomic_fetch_add(&control->step, 1);
		if (step < ENTRIES)
			memcpy(control->log[step], call, TEXT);
		int due = control->kinds >> kind & 1 && control->hits;
		if (!fnmatch(control->pattern, call, 0))
			due |= atomic_fetch_add(&control->alike, 1) == control->target;
		if (control->mode != COUNT && due) {
			if (!atomic_fetch_add(&control->hits, 1))
				memcpy(control->hit, call, TEXT);
			switch (control->mode) {
			case FAIL: action = control->error; break;
			case SHORT: action = -1; break;
			case KILL: syscall(SYS_kill, getpid(), SIGKILL); break;
			case KILL_AFTER: action = -2; break;
			}
		}
	}
	inside = 0;
	errno = saved;
	return action;
}

static void *original(const char *name)
{
	inside++;
	void *found = dlsym(RTLD_NEXT, name);
	inside--;
	return found;
}

#define CALL(type, name, ...) ({ \
	static type (*real)(); \
	if (!real) real = original(#name); \
	type result = real(__VA_ARGS__); \
	if (action == -2) syscall(SYS_kill, getpid(), SIGKILL); \
	result; })
#define STEP(kind, fd, path, anything, failure) \
	int action = next_step(kind, fd, path, anything); \
	if (action > 0) { errno = action; return failure; }
#define SHORTER(size) (action == -1 && (size) > 1 ? (size) / 2 : (size))

#define OPENAT(name) \
int name(int dirfd, const char *path, int flags, ...) \
{ \
	va_list list; va_start(list, flags); int mode = va_arg(list, int); va_end(list); \
	STEP(OPEN, dirfd, path, 0, -1) \
	return CALL(int, name, dirfd, path, flags, mode); \
}
OPENAT(openat) OPENAT(openat64)
#define OPEN1(name) \
int name(const char *path, int flags, ...) \
{ \
	va_list list; va_start(list, flags); int mode = va_arg(list, int); va_end(list); \
	STEP(OPEN, AT_FDCWD, path, 0, -1) \
	return CALL(int, name, path, flags, mode); \
}
OPEN1(open) OPEN1(open64)

#define PWRITE(name) \
ssize_t name(int fd, const void *data, size_t size, off_t offset) \
{ STEP(WRITE, fd, NULL, 0, -1) return CALL(ssize_t, name, fd, data, SHORTER(size), offset); }
PWRITE(pwrite) PWRITE(pwrite64)
ssize_t write(int fd, const void *data, size_t size)
{ STEP(WRITE, fd, NULL, 0, -1) return CALL(ssize_t, write, fd, data, SHORTER(size)); }

#define PREAD(name) \
ssize_t name(int fd, void *data, size_t size, off_t offset) \
{ STEP(READ, fd, NULL, 0, -1) return CALL(ssize_t, name, fd, data, SHORTER(size), offset); }
PREAD(pread) PREAD(pread64)
ssize_t read(int fd, void *data, size_t size)
{ STEP(READ, fd, NULL, 0, -1) return CALL(ssize_t, read, fd, data, SHORTER(size)); }
#define PREADV(name, parameter, argument) \
ssize_t name(int fd, const struct iovec *iov, int count, off_t offset parameter) \
{ \
	STEP(READ, fd, NULL, 0, -1) \
	struct iovec first = { iov->iov_base, SHORTER(iov->iov_len) }; \
	if (action == -1) return CALL(ssize_t, name, fd, &first, 1, offset argument); \
	return CALL(ssize_t, name, fd, iov, count, offset argument); \
}
#define FLAGS_PARAMETER , int flags
#define FLAGS_ARGUMENT , flags
PREADV(preadv, , ) PREADV(preadv64, , )
PREADV(preadv2, FLAGS_PARAMETER, FLAGS_ARGUMENT) PREADV(preadv64v2, FLAGS_PARAMETER, FLAGS_ARGUMENT)

#define LSEEK(name) off_t name(int fd, off_t offset, int whence) \
{ STEP(SEEK, fd, NULL, 0, -1) return CALL(off_t, name, fd, offset, whence); }
LSEEK(lseek) LSEEK(lseek64)
/* It is closed anyway. */
int close(int fd)
{
	int action = next_step(CLOSE, fd, NULL, 0);
	int result = CALL(int, close, fd);
	if (action > 0) { errno = action; return -1; }
	return result;
}
int fsync(int fd) { STEP(SYNC, fd, NULL, 0, -1) return CALL(int, fsync, fd); }
int fdatasync(int fd) { STEP(SYNC, fd, NULL, 0, -1) return CALL(int, fdatasync, fd); }
int linkat(int from, const char *old, int to, const char *new, int flags)
{ STEP(LINK, to, new, 0, -1) return CALL(int, linkat, from, old, to, new, flags); }
int link(const char *old, const char *new) { STEP(LINK, AT_FDCWD, new, 0, -1) return CALL(int, link, old, new); }
int renameat(int from, const char *old, int to, const char *new)
{ STEP(RENAME, to, new, 0, -1) return CALL(int, renameat, from, old, to, new); }
int rename(const char *old, const char *new) { STEP(RENAME, AT_FDCWD, new, 0, -1) return CALL(int, rename, old, new); }
int unlinkat(int fd, const char *path, int flags)
{ STEP(UNLINK, fd, path, 0, -1) return CALL(int, unlinkat, fd, path, flags); }
int unlink(const char *path) { STEP(UNLINK, AT_FDCWD, path, 0, -1) return CALL(int, unlink, path); }
int rmdir(const char *path) { STEP(UNLINK, AT_FDCWD, path, 0, -1) return CALL(int, rmdir, path); }
int mkdirat(int fd, const char *path, mode_t mode)
{ STEP(MKDIR, fd, path, 0, -1) return CALL(int, mkdirat, fd, path, mode); }
int mkdir(const char *path, mode_t mode) { STEP(MKDIR, AT_FDCWD, path, 0, -1) return CALL(int, mkdir, path, mode); }

#define FTRUNCATE(name) int name(int fd, off_t size) { STEP(TRUNCATE, fd, NULL, 0, -1) return CALL(int, name, fd, size); }
FTRUNCATE(ftruncate) FTRUNCATE(ftruncate64)
/* These return the error. */
#define FALLOCATE(name) int name(int fd, off_t offset, off_t size) \
{ int action = next_step(ALLOCATE, fd, NULL, 0); if (action > 0) return action; return CALL(int, name, fd, offset, size); }
FALLOCATE(posix_fallocate) FALLOCATE(posix_fallocate64)
int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument)
{
	int action = next_step(THREAD, -1, NULL, 1);
	if (action > 0)
		return action;
	return CALL(int, pthread_create, thread, attributes, run, argument);
}

int memfd_create(const char *name, unsigned flags) { STEP(MEMFD, -1, NULL, 1, -1) return CALL(int, memfd_create, name, flags); }
#define FCNTL(name) \
int name(int fd, int command, ...) \
{ \
	va_list list; va_start(list, command); void *argument = va_arg(list, void *); va_end(list); \
	int ours = command == F_DUPFD_CLOEXEC || command == F_ADD_SEALS; \
	int action = ours ? next_step(CONTROL, fd, NULL, command == F_DUPFD_CLOEXEC) : 0; \
	if (action > 0) { errno = action; return -1; } \
	return CALL(int, name, fd, command, argument); \
}
FCNTL(fcntl) FCNTL(fcntl64)
int flock(int fd, int operation) { STEP(LOCK, fd, NULL, 0, -1) return CALL(int, flock, fd, operation); }
int fstatvfs64(int fd, void *state) { STEP(STATFS, fd, NULL, 0, -1) return CALL(int, fstatvfs64, fd, state); }
int statvfs64(const char *path, void *state)
{ STEP(STATFS, AT_FDCWD, path, 0, -1) return CALL(int, statvfs64, path, state); }
#define FSTAT(name) int name(int fd, void *state) { STEP(STAT, fd, NULL, 0, -1) return CALL(int, name, fd, state); }
FSTAT(fstat) FSTAT(fstat64)
#define PSTAT(name) int name(const char *path, void *state) { STEP(STAT, AT_FDCWD, path, 0, -1) return CALL(int, name, path, state); }
PSTAT(stat) PSTAT(stat64) PSTAT(lstat) PSTAT(lstat64)
DIR *opendir(const char *path) { STEP(LIST, AT_FDCWD, path, 0, NULL) return CALL(DIR *, opendir, path); }
DIR *fdopendir(int fd) { STEP(LIST, fd, NULL, 0, NULL) return CALL(DIR *, fdopendir, fd); }
#define READDIR(name, type) type *name(DIR *dir) { STEP(LIST, dirfd(dir), NULL, 0, NULL) return CALL(type *, name, dir); }
READDIR(readdir, struct dirent) READDIR(readdir64, struct dirent64)
pid_t fork(void) { STEP(FORK, -1, NULL, 1, -1) return CALL(pid_t, fork); }
/* A vfork() of another function's frame would return into nothing; fork() does all that it does. */
pid_t vfork(void) { STEP(FORK, -1, NULL, 1, -1) return CALL(pid_t, fork); }
int pipe2(int fds[2], int flags) { STEP(PIPE, -1, NULL, 1, -1) return CALL(int, pipe2, fds, flags); }
#define MMAP(name) \
void *name(void *start, size_t size, int protection, int flags, int fd, off_t offset) \
{ STEP(MAP, fd, NULL, fd < 0, MAP_FAILED) return CALL(void *, name, start, size, protection, flags, fd, offset); }
MMAP(mmap) MMAP(mmap64)
ssize_t copy_file_range(int in, off_t *from, int out, off_t *to, size_t size, unsigned flags)
{ STEP(COPY, out, NULL, 0, -1) return CALL(ssize_t, copy_file_range, in, from, out, to, SHORTER(size), flags); }
ssize_t sendfile64(int out, int in, off_t *offset, size_t size)
{ STEP(COPY, in, NULL, 0, -1) return CALL(ssize_t, sendfile64, out, in, offset, SHORTER(size)); }

/* What dlsym allocates must not ask dlsym. */
void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
#define MEMORY_STEP(size) \
	if ((size) >= LARGE) { \
		int action = next_step(MEMORY, -1, NULL, 1); \
		if (action > 0) { errno = ENOMEM; return NULL; } \
		if (action == -2) syscall(SYS_kill, getpid(), SIGKILL); \
	}
void *malloc(size_t size) { MEMORY_STEP(size) return __libc_malloc(size); }
void *calloc(size_t count, size_t size) { MEMORY_STEP(count * size) return __libc_calloc(count, size); }
void *realloc(void *old, size_t size) { MEMORY_STEP(size) return __libc_realloc(old, size); }
