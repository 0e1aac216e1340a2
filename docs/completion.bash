# SPDX-License-Identifier: LGPL-2.1-or-later
# Completion of vmcoredd and vmcoredd-daemon in bash; made by docs/completion.py. It needs bash-completion.

# GENERATED

# Names in JSON, one a line; those with a backslash are left out.
_vmcoredd_names() {
    tr -d '\n' | grep -oE "\"name\": *\"[^\"\\\\]*\"$1" | sed 's/^"name": *"\([^"]*\)".*/\1/'
}

# Lines that begin with $cur become completions, quoted where they must be.
_vmcoredd_lines() {
    local line
    while IFS= read -r line; do
        [[ $line != "$cur"* ]] || COMPREPLY+=("$(printf %q "$line")")
    done
    __ltrim_colon_completions "$cur"
}

_vmcoredd_complete() {
    case ${1%[?*]} in
        files) _filedir ;;
        directories) _filedir -d ;;
        modes) mapfile -t COMPREPLY < <(compgen -W 'short pretty lines off' -- "$cur") ;;
        collectors)
            _vmcoredd_lines < <("${program[0]}" run --list --json 2>/dev/null | _vmcoredd_names ', *"runs"') ;;
        dumps)
            _vmcoredd_lines < <("${program[@]}" --json 2>/dev/null | _vmcoredd_names) ;;
        dumps_of_vmcore)
            _vmcoredd_lines < <("${program[0]}" inspect --json -- "$vmcore" 2>/dev/null | _vmcoredd_names) ;;
        attachments)
            if [[ $cur == *=* ]]; then
                cur=${cur#*=}
                _filedir
            elif [[ ! $vmcore && ! ${seen[--stream]} ]]; then
                _filedir
            else
                _filedir note
            fi ;;
    esac
}

_vmcoredd() {
    local cur prev words cword word kind command='' vmcore='' count=0 previous='' i
    local -A seen
    local -a kinds program
    _get_comp_words_by_ref -n := cur prev words cword || return
    program=("${words[0]}" list)
    [[ ${words[0]##*/} != vmcoredd-daemon ]] || command=vmcoredd-daemon
    for ((i = 1; i < cword; i++)); do
        word=${words[i]}
        kind=${_vmcoredd_values["$command:$previous"]-}
        if [[ $kind && $kind != *\? ]]; then
            # The value of the option before it.
            [[ $previous != --bus-address ]] || program+=("$previous" "$word")
            previous=''
            continue
        fi
        previous=$word
        if [[ $word == -?* ]]; then
            seen[${word%%=*}]=1
        elif [[ ! $command ]]; then
            command=$word
        else
            # As far as the shell would take the word apart.
            [[ $vmcore ]] || vmcore=${word//\\/}
            count=$((count + 1))
        fi
    done
    kind=${_vmcoredd_values["$command:$previous"]-}
    if [[ $kind && $kind != *\? ]]; then
        _vmcoredd_complete "$kind"
    elif [[ $cur == --*=* ]]; then
        kind=${_vmcoredd_values["$command:${cur%%=*}"]-}
        cur=${cur#*=}
        _vmcoredd_complete "$kind"
    elif [[ $cur == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "${_vmcoredd_options["$command:"]-}" -- "$cur")
        [[ ${COMPREPLY-} != *= ]] || compopt -o nospace
    elif [[ ! $command ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$_vmcoredd_commands" -- "$cur")
    else
        read -r -a kinds <<< "${_vmcoredd_arguments["$command:"]-}"
        if [[ $command == core-collector ]]; then
            _filedir
        elif [[ ${#kinds[@]} -gt 0 ]]; then
            [[ $count -lt ${#kinds[@]} ]] || [[ ${kinds[-1]} != *\* ]] || count=$((${#kinds[@]} - 1))
            _vmcoredd_complete "${kinds[count]-nothing}"
        fi
    fi
}

complete -F _vmcoredd vmcoredd vmcoredd-daemon
