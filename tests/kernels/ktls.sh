# Inside the kernel under test: tests of kTLS without the module, with a cipher missing, and with all.
export CLINCH_BIN
modules=/lib/modules/$(uname -r)/kernel
failed=0

# on KERNEL-HAS FILTER...: the tests, told what the kernel has.
on() {
    echo "== kTLS: ${1:-none}"
    export CLINCH_KTLS="$1"
    shift
    "$TEST" --test-threads 1 "$@" || failed=1
}

hide() {
    for file in $(find "$modules" -name "$1.ko*"); do mv "$file" "$file.away"; done
}

show() {
    for file in $(find "$modules" -name "$1.ko*.away"); do mv "$file" "${file%.away}"; done
}

# Keys can be exchanged since 6.14.
case $(uname -r) in 6.1.* | 6.12.*) rekey= ;; *) rekey=,rekey ;; esac
hide tls
on '' what_the_kernel tls_1_2 each_suite
show tls
hide chacha20poly1305
on "aes128,aes256$rekey" what_the_kernel each_suite
show chacha20poly1305
on "aes128,aes256,chacha$rekey"
exit $failed
