# Inside the kernel under test: tests of steering. The verifier of that kernel takes the object, or no test
# passes: each waits for the mode `kernel`.
TESTS=${CLINCH_KERNEL_TESTS:-'names::each_name names::wildcards names::clients_without names::plain_http segments::a_name_in segments::a_hello_of_two segments::a_hello_whose segments::segments_in plug:: changes::follows changes::nothing_of crowds::good_clients'}
export CLINCH_BIN
# shellcheck disable=SC2086 # one word per filter
exec "$TEST" --test-threads 1 $TESTS
