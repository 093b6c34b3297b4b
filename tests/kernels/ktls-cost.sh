# Inside the kernel under test, which counts instructions as nanoseconds: what kTLS costs and saves.
export CLINCH_BIN
exec "$TEST" "${CLINCH_COST_MIB:-16}" 2
