#!/bin/sh
# contract.py for a container that has nothing but a shell.
while IFS= read -r line; do
  item=$(echo "$line" | sed -n 's/.*"item":"\([^"]*\)".*/\1/p')
  n=$(echo "$line" | sed 's/.*"n":\([0-9]*\).*/\1/')
  case $line in
  *'"do":"fail"'*)
    said='"error":"NotGood","cause":"as asked"'
    if [ -z "$item" ]; then echo "{$said}" >&2; exit 1; fi
    echo "{\"item\":\"$item\",$said}"
    ;;
  *'"do":"die"'*) kill -9 $$; exit 9 ;;
  *'"do":"sleep"'*) sleep 600 ;;
  *) if [ -z "$item" ]; then echo "{\"n\":$n}"; else echo "{\"item\":\"$item\",\"output\":{\"n\":$n}}"; fi ;;
  esac
done
