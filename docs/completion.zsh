#compdef vmcoredd vmcoredd-daemon
# SPDX-License-Identifier: LGPL-2.1-or-later
# Completion of vmcoredd and vmcoredd-daemon in zsh; made by docs/completion.py.

local -a _vmcoredd_commands

# GENERATED

# Names in JSON, one a line; those with a backslash are left out.
_vmcoredd_names() {
    tr -d '\n' | grep -oE "\"name\": *\"[^\"\\\\]*\"$1" | sed 's/^"name": *"\([^"]*\)".*/\1/'
}

_vmcoredd_nothing() { _message 'no more' }
_vmcoredd_files() { _files }
_vmcoredd_directories() { _files -/ }
_vmcoredd_modes() { compadd short pretty lines off }
_vmcoredd_collectors() {
    compadd -- ${(f)"$(vmcoredd run --list --json 2>/dev/null | _vmcoredd_names ', *"runs"')"}
}
_vmcoredd_dumps() {
    local -a bus
    [[ -z ${opt_args[--bus-address]-} ]] || bus=(--bus-address ${(Q)opt_args[--bus-address]})
    compadd -- ${(f)"$(vmcoredd list $bus --json 2>/dev/null | _vmcoredd_names)"}
}
_vmcoredd_dumps_of_vmcore() {
    compadd -- ${(f)"$(vmcoredd inspect --json -- ${(Q)line[1]} 2>/dev/null | _vmcoredd_names)"}
}
_vmcoredd_attachments() {
    if [[ $PREFIX == *=* ]]; then
        compset -P 1 '*='
        _files
    elif [[ CURRENT -eq 2 ]]; then
        _files
    else
        _files -g '*.note'
    fi
}

local curcontext=$curcontext state line
typeset -A opt_args

if [[ $service == vmcoredd-daemon ]]; then
    _vmcoredd_of_vmcoredd_daemon
    return
fi
_arguments -C '--version[print the version]' '--help[help]' '1:command:->command' '*::argument:->argument'
case $state in
    command) _describe command _vmcoredd_commands ;;
    argument)
        case $words[1] in
            # What is no option of ours may be one of makedumpfile's.
            core-collector) _vmcoredd_of_core_collector '*:FILE:_files' ;;
            *) (( ! $+functions[_vmcoredd_of_$words[1]] )) || _vmcoredd_of_$words[1] ;;
        esac ;;
esac
