# The math floor's own checks.

## test-exhaustive: exp, tanh, log, sin, cos on all 2^32 floats (10 minutes on two cores)
test-exhaustive: $(BUILD)/exhaustive/functions_test
	$< all
$(BUILD)/exhaustive/functions_test: src/math/functions_test.c $(LIB)
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -DLK_MPFR $(LDFLAGS) -o $@ $^ -lcmocka -lmpfr -lgmp $(LDLIBS)

# No function of libm in numerics: what the math objects may need from outside is listed, all of it harmless.
## check-libm: the numeric objects call nothing of libm
check-libm: $(OBJ)
	@nm -u $(filter $(BUILD)/src/math/%,$(OBJ)) $(foreach i,$(ISAS),$(filter $(BUILD)/$i/%,$(OBJ))) \
	  $(foreach r,$(REFS),$(filter $(BUILD)/ref-$r/%,$(OBJ))) | awk '/ U /{print $$2}' | sort -u \
	  | grep -vE '^(lk_|_GLOBAL_OFFSET_TABLE_|__stack_chk|__cpu_model|__cpu_features2|__asan|__ubsan|__tsan|__cpu_indicator_init|mem(cpy|move|set|cmp)$$|str(len|cmp)$$|getenv$$|snprintf$$|__snprintf_chk$$|clock_gettime$$)' \
	  && { echo "check-libm: the symbols above are not allowed in src/math"; exit 1; } || echo "check-libm: ok"

# NEON under qemu-user: the math floor and the parts of base that it needs, no library beside libc.
NEON_CC    ?= aarch64-linux-gnu-gcc
NEON_QEMU  ?= qemu-aarch64
NEON_BASE  := $(addprefix src/base/,caches.c clock.c err.c fpenv.c limit_text.c limits.c mem.c random.c sha256.c thread.c) tests/arm64/hash.c
NEON_TESTS := vectors_test fma_test functions_test kernels_test math_test matmul_test panels_test quant_test attention_test
## test-neon: the math floor's tests, NEON against the reference and the fingerprint, under qemu-user
test-neon:
	@$(MAKE) --no-print-directory CC=$(NEON_CC) BUILD=$(BUILD)/arm64 FLOORS=math LIB_C='$(filter src/math/%,$(LIB_C)) $(NEON_BASE)' \
	  $(NEON_TESTS:%=$(BUILD)/arm64/static/%)
	@for t in $(NEON_TESTS); do a=; [ $$t != functions_test ] || a=40009; \
	  echo "== $$t, NEON"; $(NEON_QEMU) $(BUILD)/arm64/static/$$t $$a || exit 1; done
$(BUILD)/static/%: src/math/%.c $(LIB)
	@mkdir -p $(@D)
	$(CC) -Itests/arm64 $(CPPFLAGS) $(CFLAGS) -static -o $@ $^ -lm
.PHONY: test-exhaustive check-libm test-neon

## bench-kernels: the row and element kernels beside the memory's speed
bench-kernels: $(BUILD)/bench/kernels
	$<
.PHONY: bench-kernels
