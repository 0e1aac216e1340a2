# SPDX-License-Identifier: LGPL-2.1-or-later
"""Machines that panic on purpose: real vmcores from real capture kernels, in QEMU."""
