# One order as JSON on standard input, its amount in euros as JSON on standard output.
order=$(cat)
amount=$(printf '%s' "$order" | sed -n 's/.*"amount":"\([0-9.]*\)".*/\1/p')
currency=$(printf '%s' "$order" | sed -n 's/.*"currency":"\([A-Z]*\)".*/\1/p')
rate=$(sed -n "s/^$currency //p" rates.txt)
if [ -z "$rate" ]; then
  # The last line of standard error names the class of the failure and its cause.
  echo "{\"error\": \"NoRate\", \"cause\": \"rates.txt has no $currency\"}" >&2
  exit 1
fi
awk "BEGIN { printf \"{\\\"euros\\\": %.2f}\\n\", $amount * $rate }"
