# Inside an emulated machine, where descriptors are not limited: what 50,000 connections take of memory.
export CLINCH_BIN
"$TEST" --clinch "$CLINCH_BIN" --no-record --rounds 1 --count 160 --held 50000 scale-connections > /tmp/out 2>&1
ended=$?
cat /tmp/out
sed -n 's/^ *\(memory per connection\|stopped at\|note: stopped at\)/cost \1/p' /tmp/out
exit $ended
