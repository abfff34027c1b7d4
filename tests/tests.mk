# Tests. What each file of tests/ proves: tests/README.md.
CHECKERS := $(BUILD)/tests/json_check $(BUILD)/tests/tamper
comma := ,

## test: install what is missing, build, run unit and end-to-end tests
test:
	@INSTALL=$(INSTALL) tools/packages.sh test
	@$(MAKE) --no-print-directory -s -j$$(nproc) BUILD=$(BUILD) test-programs
	@LOCKSTEP=$(BUILD)/lockstep BUILD=$(BUILD) tests/run.sh $(TESTS)
test-programs: all $(TESTS) $(CHECKERS)
## e2e: the end-to-end tests only; ONLY=cli runs those whose names hold that
e2e: all $(CHECKERS)
	@LOCKSTEP=$(BUILD)/lockstep BUILD=$(BUILD) ONLY=$(ONLY) tests/run.sh

$(BUILD)/tests/%: tests/%.c $(LIB)
	@mkdir -p $(@D)
	@$(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $< $(LIB) $(LDLIBS)
.PHONY: test test-programs e2e
