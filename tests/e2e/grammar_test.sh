#!/bin/bash
# Constrained generation: texts are of the grammar, JSON is JSON, the same on every instruction set and with any number of
# threads; what is refused and how it is said; random schemas by jsonschema, where python3 has it.
. "$(dirname "$0")/lib.sh"

standard_data
config c.ini run.name=m run.steps=3
quiet "$LOCKSTEP" train c.ini || exit 1
cat >person.json <<'J'
{"type": "object", "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "minimum": 0, "maximum": 130},
 "mail": {"type": ["string", "null"], "format": "email"}, "kind": {"enum": ["friend", "foe"]}}, "required": ["name", "age", "mail", "kind"],
 "additionalProperties": false}
J
printf 'root ::= ("yes" | "no") ", " [0-9]{3} "."\n' >answer.gbnf

gen() { "$LOCKSTEP" generate m "$@" --json; }
text_of() { sed -n 's/^ *"text": "\(.*\)",$/\1/p'; }
for seed in 1 2 3; do
    gen "he" --json-schema person.json --tokens 300 --seed $seed >out.json
    text_of <out.json | sed 's/\\"/"/g; s/\\\\/\\/g' >text.json
    check "seed $seed: JSON" "$TOOLS/json_check" lines <text.json
    if grep -Eq '^\{"name": ".*", "age": ([0-9]|[1-9][0-9]|1[0-2][0-9]|130), "mail": (null|".*@.*"), "kind": "(friend|foe)"\}$' text.json
    then ok "seed $seed: of the schema"; else not_ok "seed $seed: of the schema" "$(cat text.json)"; fi
    equal "seed $seed: ended" "$(field finish <out.json)" end
done
for isa in $(isas); do
    equal "$isa, 3 threads: the same" "$(LOCKSTEP_ISA=$isa gen "he" --threads 3 --json-schema person.json --tokens 300 --seed 3 | text_of)" "$(text_of <out.json)"
done
equal "a grammar, the likeliest text" "$(gen "he" --grammar answer.gbnf --temperature 0 | text_of | grep -cE '^(yes|no), [0-9]{3}\.$')" 1
equal "cut" "$(gen "he" --grammar answer.gbnf --tokens 1 | field finish)" length
gen "he" --json-object --tokens 400 --seed 2 >out.json
case $(field finish <out.json) in
end) text_of <out.json | sed 's/\\"/"/g; s/\\\\/\\/g' >text.json; check "any object" "$TOOLS/json_check" lines <text.json ;;
length) ok "any object, cut" ;;
*) not_ok "any object" "$(cat out.json)" ;;
esac

echo '{"type": "object", "properties": {"a": {"allOf": []}}}' >all.json
fails "a keyword that is not supported" 1 'all.json: \$\.properties\.a\.allOf: not supported' -- "$LOCKSTEP" generate m --json-schema all.json
echo '{"type": ' >half.json
fails "half a schema" 1 'half.json:2.*not valid JSON' -- "$LOCKSTEP" generate m --json-schema half.json
echo 'root ::= x' >no.gbnf
fails "a rule that is nowhere" 1 'no.gbnf: line 1, column 10: the rule x is nowhere' -- "$LOCKSTEP" generate m --grammar no.gbnf
fails "no such file" 1 'cannot open none.gbnf' -- "$LOCKSTEP" generate m --grammar none.gbnf
fails "two at once" 2 'give one of --grammar, --json-schema and --json-object' -- "$LOCKSTEP" generate m --json-object --grammar no.gbnf

if python3 -c 'import jsonschema' 2>/dev/null; then
    check "random schemas and a random model, by jsonschema" python3 "$HERE/../peers/grammar_peers.py" "$LOCKSTEP" 150 "${LOCKSTEP_TEST_SEED:-1}"
fi
finish
