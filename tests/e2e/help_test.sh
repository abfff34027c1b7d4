#!/bin/bash
# Manual pages and completion, as man, bash and zsh take them.
. "$(dirname "$0")/lib.sh"

# --- manual pages --------------------------------------------------------------------------------------------------------
check "help --man" "$LOCKSTEP" help --man pages
equal "a page a command, and one for all" "$(ls pages)" "$({ echo lockstep.1; "$LOCKSTEP" help --markdown | sed -n 's/^## lockstep \(.*\)/\1/p' | tr ' ' - | sed 's/.*/lockstep-&.1/'; } | sort)"
if command -v mandoc >/dev/null; then
    equal "mandoc has nothing to say" "$(mandoc -T lint -W warning pages/*.1 2>&1)none" none
    # What is read is what the table says: options, help and details, to the letter.
    shown() { mandoc -T utf8 -O width=400 "$1" | sed 's/.\x08//g' | tr -s ' \n' ' '; }
    for c in "tokenizer train" train generate; do
        page=$(shown "pages/lockstep-${c/ /-}.1") missing=
        while IFS= read -r line; do
            line=$(tr -s ' ' <<<"$line" | sed 's/^ //; s/ $//')
            case $page in *"$line"*) ;; *) missing="$missing
$line" ;; esac
        done < <("$LOCKSTEP" $c -h | sed 1d)
        equal "the page of $c has all of -h" "none$missing" none
    done
else ok "SKIP: no mandoc"; fi
fails "a folder that cannot be made" 1 "/dev/null" -- "$LOCKSTEP" help --man /dev/null/x
fails "an unknown shell" 2 "tcsh: give bash or zsh" -- "$LOCKSTEP" help --completion tcsh

# --- completion: two stores with something in them --------------------------------------------------------------------------
text 20000 1 >text.txt
quiet "$LOCKSTEP" tokenizer train text.txt --vocab 300 --name alpha
quiet "$LOCKSTEP" dataset build data-1 text.txt --tokenizer alpha
quiet "$LOCKSTEP" dataset build data-2 text.txt --tokenizer alpha --holdout 0.1
config tiny.ini data.dataset=data-1 run.name=first run.steps=1 checkpoint.every=0 eval.every=0
quiet "$LOCKSTEP" train tiny.ini
quiet "$LOCKSTEP" tokenizer train text.txt --vocab 301 --name elsewhere --store other
mkdir sub && touch "sub/a file" sub/b.ini

"$LOCKSTEP" help --completion bash >bash.completion
# bash_says LINE: what bash, alone with the completion, offers for the word at the end of the line, sorted
bash_says() {
    env -i PATH="$PATH" LOCKSTEP_STORE="$LOCKSTEP_STORE" bash --norc --noprofile -c '
        . ./bash.completion
        read -ra COMP_WORDS <<<"$1" && COMP_WORDS[0]=$2
        case $1 in *" ") COMP_WORDS+=("") ;; esac
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        function=$(complete -p lockstep | sed "s/.*-F \([^ ]*\).*/\1/")
        "$function" 2>&1
        printf "%s\n" "${COMPREPLY[@]}" | sort | tr "\n" " "' - "$1" "$LOCKSTEP"
}
says() { equal "bash: $2" "[$(bash_says "$1" | sed 's/ $//')]" "[$3]"; }
says "lockstep tok" "a noun" "tokenizer"
says "lockstep dataset v" "a verb" "verify"
says "lockstep dataset x" "no such verb" ""
says "lockstep train --re" "an option" "--resume"
says "lockstep gc --" "options, the common ones too" "--blobs --dry-run --grace --json --store --threads"
says "lockstep tokenizer show " "names of tokenizers" "alpha"
says "lockstep dataset show " "names of datasets" "data-1 data-2"
says "lockstep dataset show --json data-2" "behind a flag" "data-2"
says "lockstep runs show f" "names of runs" "first"
says "lockstep train --resume " "an option's value" "first"
says "lockstep train --resume = f" "joined by =" "first"
says "lockstep dataset build new --tokenizer " "a tokenizer for a dataset" "alpha"
says "lockstep eval first --dataset data-" "a dataset for an evaluation" "data-1 data-2"
says "lockstep tokenizer show --store other " "another store" "elsewhere"
says "lockstep tokenizer show --store = other " "another store, joined by =" "elsewhere"
says "lockstep tokenizer show --store nowhere " "no store" ""
says "lockstep tokenizer show alpha " "no argument left" ""
says "lockstep tokenizer train sub/" "files" "sub/a file sub/b.ini"
says "lockstep tokenizer train text.txt sub/b" "files, again" "sub/b.ini"
says "lockstep help --completion " "words" "bash zsh"
says "lockstep generate " "a model or a run" "first"
says "lockstep eval f" "also to evaluate" "first"
says "lockstep help ge" "a command to explain" "generate"
began=$(now_ms)
for i in 1 2 3 4 5 6 7 8 9 10; do bash_says "lockstep dataset show " >/dev/null; done
took=$((($(now_ms) - began) / 10))
echo "# a completion of names takes $took ms, the start of bash included"

# As a person types it: programmable completion by readline, in an interactive shell on a terminal.
if command -v script >/dev/null; then
    mkdir bin && ln -s "$LOCKSTEP" bin/lockstep
    printf '. ./bash.completion\nPS1="> "\nbind "set bell-style none"\n' >rc
    { sleep 1; printf 'echo lockstep; lockstep tokenizer sh\tal\t\n'; sleep 1; printf 'exit\n'; } |
        PATH=$WORK/bin:$PATH TERM=dumb script -qec "bash --noprofile --rcfile rc -i" /dev/null >typed.txt 2>&1
    check "bash, typed: sh<TAB>al<TAB> became a command that ran" grep -q "^vocab    300" typed.txt
fi

# --- zsh ---------------------------------------------------------------------------------------------------------------------
if command -v zsh >/dev/null; then
    mkdir -p functions && "$LOCKSTEP" help --completion zsh >functions/_lockstep
    cat >typing.zsh <<'Z'
# typing.zsh FILE: types each line of FILE and <TAB> into an interactive zsh, prints what is then on its line
zmodload zsh/zpty
zpty -b shell zsh -f -i
zpty -w shell "PS1= PS2= RPS1= ; unsetopt zle_bracketed_paste beep; fpath=($PWD/functions \$fpath); autoload -U compinit && compinit -u -D"
zpty -w shell "show() { print -r -- \"<<\$BUFFER>>\"; zle kill-buffer }; zle -N show; bindkey '^X' show; bindkey '^I' complete-word; path=($PWD/bin \$path); print ready:"
wait_for() { local all= part; integer n=0; while (( n++ < 1000 )); do zpty -r -t shell part && all+=$part; [[ $all == *$1* ]] && break; sleep 0.01; done; REPLY=$all }
wait_for 'ready:*ready:'
while IFS= read -r line; do
    zpty -w -n shell "$line"$'\t\C-x'
    wait_for '>>'
    REPLY=${REPLY##*<<}
    print -r -- ${REPLY%%>>*}
done <$1
zpty -d shell
Z
    [ -d bin ] || { mkdir bin && ln -s "$LOCKSTEP" bin/lockstep; }
    typed() { printf '%s\n' "$@" >lines && env -u ZDOTDIR TERM=vt100 COLUMNS=200 zsh -f typing.zsh lines; }
    typed "lockstep tok" "lockstep dataset ver" "lockstep tokenizer show " "lockstep dataset show dat" "lockstep train --resu" "lockstep train --resume " \
        "lockstep dataset build new --tokenizer " "lockstep tokenizer show --store other " "lockstep runs show --json f" "lockstep help --completion z" >zsh.txt 2>&1
    n=0
    zsh_says() { n=$((n + 1)); equal "zsh: $1" "$(sed -n "${n}p" zsh.txt | sed 's/ *$//')" "$2"; }
    zsh_says "a noun" "lockstep tokenizer"
    zsh_says "a verb" "lockstep dataset verify"
    zsh_says "the one name there is" "lockstep tokenizer show alpha"
    zsh_says "as far as names agree" "lockstep dataset show data-"
    zsh_says "an option" "lockstep train --resume="
    zsh_says "its value" "lockstep train --resume first"
    zsh_says "a tokenizer for a dataset" "lockstep dataset build new --tokenizer alpha"
    zsh_says "another store" "lockstep tokenizer show --store other elsewhere"
    zsh_says "behind a flag" "lockstep runs show --json first"
    zsh_says "a word" "lockstep help --completion zsh"
fi
finish
