#!/bin/sh
# The work for the poorest of containers: {"n":3,"text":"abc"} on standard input.
awk '{
  match($0, /"n": *[0-9]+/); n = substr($0, RSTART, RLENGTH); sub(/.*: */, "", n)
  match($0, /"text": *"[^"]*"/); text = substr($0, RSTART, RLENGTH); sub(/^"text": *"/, "", text); sub(/"$/, "", text)
  printf "{\"n\":%d,\"square\":%d,\"upper\":\"%s\"}\n", n, n * n, toupper(text)
}'
