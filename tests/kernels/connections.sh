# Inside an emulated machine, where descriptors are not limited: what 50,000 connections take of memory.
export CLINCH_BIN
{
    "$TEST" --clinch "$CLINCH_BIN" --no-record --rounds 1 --count 160 --held 50000 scale-connections 2>&1
    echo $? > /tmp/ended
} | sed -u 's/^ *\(memory per connection\|note: stopped at\)/cost \1/'
exit "$(cat /tmp/ended)"
