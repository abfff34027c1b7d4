# Lockstep. `make help` lists the targets.
.DEFAULT_GOAL := all
VERSION := 0.1.0
SO_VERSION := 0
RELEASED := 2026-11-23
BUILD   ?= build
CC      ?= cc
OPT     ?= -O2
SAN     ?=
INSTALL ?= yes
PREFIX  ?= /usr/local
TEXT    ?=
# V=1 shows the commands; make -s not even what is made, whoever of our own targets calls make -s then
Q := $(if $(V),,@)
export SHOW_MADE ?= $(if $(findstring s,$(filter-out -%,$(firstword $(MAKEFLAGS)))),,yes)
SAY = $(if $(SHOW_MADE),echo "  $@",:)
# src/floors: the floors, lowest first; a floor uses itself and those below it. A shorter list builds a part: make FLOORS="base math" unit
FLOORS  ?= $(shell cat src/floors)

ARCH := $(shell $(CC) -dumpmachine 2>/dev/null | cut -d- -f1)
WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wwrite-strings -Wvla -Wno-missing-field-initializers
# The numeric contract needs the first three; docs/numerics.md, "Environment".
NUMERIC := -fno-fast-math -ffp-contract=off -fno-math-errno -fno-trapping-math # in this order: the first resets the others
CPPFLAGS += -Iinclude -Isrc -D_GNU_SOURCE -DLK_VERSION='"$(VERSION)"' -DLK_RELEASED='"$(RELEASED)"'
# Objects are made once, for both libraries; calls inside one are direct, as in a program.
CFLAGS  += -std=c11 $(OPT) -g -pthread -fPIC -fno-semantic-interposition $(WARN) $(NUMERIC)
LDLIBS  += -llmdb -linih -ljansson -lzstd -lz -llzma -lbz2 -lcrypto -lm -ldl -pthread
ifneq ($(SAN),)
CFLAGS  += -fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=all
LDFLAGS += -fsanitize=$(SAN)
BUILD   := build/san-$(subst $(eval ) ,-,$(subst $(shell printf ','),-,$(SAN)))
endif
# MPI=no builds without; Open MPI's own leaks would fail the sanitizers.
# HTTP=no builds without a server. libmicrohttpd is loaded when one opens: src/net/http_mhd.c.
HTTP ?= $(if $(shell pkg-config --exists 'libmicrohttpd >= 0.9.71' 2>/dev/null && echo y),yes,no)
# CURL=no builds without an HTTP client, and so without S3. libcurl is loaded with the first request: src/net/http_curl.c.
CURL ?= $(if $(shell pkg-config --exists 'libcurl >= 7.85' 2>/dev/null && echo y),yes,no)
# POSTGRES=no builds without that engine; libpq is loaded when a store of it opens: src/store/kv/kv_postgres_libpq.c.
POSTGRES ?= $(if $(shell pkg-config --exists 'libpq >= 14' 2>/dev/null && echo y),yes,no)
CPPFLAGS += $(if $(filter yes,$(POSTGRES)),$(shell pkg-config --cflags libpq))
# GRPC=no builds without a gRPC server. nghttp2 and OpenSSL's libssl are loaded when one opens: src/net/grpc_h2.c, grpc_tls.c.
GRPC ?= $(if $(shell pkg-config --exists 'libnghttp2 >= 1.52' 'libprotobuf-c >= 1.4' libssl 2>/dev/null && command -v protoc-c),yes,no)
LDLIBS += $(if $(filter yes,$(GRPC)),-lprotobuf-c)
MPI ?= $(if $(SAN),no,$(if $(shell pkg-config --exists ompi-c 2>/dev/null && echo y),yes,no))

# --- what is compiled -------------------------------------------------------------------------------------------------
ALL_C  := $(sort $(foreach f,$(FLOORS),$(shell find src/$f -name '*.c' 2>/dev/null)))
CLIENT_C := src/net/http_client.c src/net/http_curl.c $(wildcard src/net/http_client_test.c src/net/aws_test.c)
SERVER_C := $(filter-out $(CLIENT_C) src/net/http_%none.c,$(wildcard src/net/http_*.c))
ALL_C  := $(filter-out $(if $(filter yes,$(HTTP)),src/net/http_none.c,$(SERVER_C)) $(if $(filter yes,$(CURL)),src/net/http_client_none.c,$(CLIENT_C) src/store/blob/blob_s3_test.c src/store/kill_test.c),$(ALL_C))
ALL_C  := $(filter-out $(if $(filter yes,$(POSTGRES)),%/kv_postgres_none.c,$(filter-out %_none.c,$(wildcard src/store/kv/kv_postgres*.c))),$(ALL_C))
ALL_C  := $(filter-out $(if $(filter yes,$(GRPC)),%/bigtable_none.c,$(filter-out %_none.c,$(wildcard src/store/bigtable/*.c))),$(ALL_C))
ALL_C  := $(filter-out $(if $(filter yes,$(GRPC)),src/net/grpc_none.c,$(filter-out src/net/grpc_none.c,$(wildcard src/net/grpc*.c))),$(ALL_C))
TEST_C := $(filter %_test.c,$(ALL_C))
SIMD_C := $(filter src/math/simd/%,$(filter-out %_test.c,$(ALL_C)))
REF_C  := $(filter src/math/ref/% src/math/blocked/%,$(filter-out %_test.c,$(ALL_C)))
CMD_C  := $(filter src/cmd/%,$(filter-out %_test.c,$(ALL_C)))
MPI_C  := $(filter src/cluster/comm_mpi.c,$(ALL_C))
LIB_C  := $(filter-out $(TEST_C) $(SIMD_C) $(REF_C) $(CMD_C) $(MPI_C),$(ALL_C))

# A flag, if the compiler takes it.
takes = $(shell $(CC) $1 -x c -c -o /dev/null /dev/null 2>/dev/null && echo $1)
# The vector source is compiled once per instruction set, the reference with the machine's FMA and with ours.
ifeq ($(ARCH),x86_64)
ISAS := avx2 avx512
FLAGS_avx2   := -mavx2 -mfma -mf16c
FLAGS_avx512 := -mavx512f -mavx512dq -mavx512bw -mavx512vl -mavx2 -mfma -mf16c -mprefer-vector-width=512
FLAGS_fma    := -mfma
# Of the files whose kernels are taken by what the CPU has besides.
$(BUILD)/avx2/src/math/simd/quant_dot.o: FLAGS_avx2 += $(call takes,-mavxvnni)
$(BUILD)/avx512/src/math/simd/quant_dot.o: FLAGS_avx512 += $(call takes,-mavx512vnni)
else ifeq ($(ARCH),aarch64)
ISAS := neon
FLAGS_neon :=
FLAGS_fma  :=
$(BUILD)/neon/src/math/simd/quant_dot.o: FLAGS_neon += $(call takes,-march=armv8.2-a+dotprod)
endif
REFS := soft $(if $(ISAS),fma) real64 # real64: the same source on doubles, the accurate model for tests

OBJ := $(LIB_C:%.c=$(BUILD)/%.o) \
       $(foreach i,$(ISAS),$(SIMD_C:%.c=$(BUILD)/$i/%.o)) \
       $(foreach r,$(REFS),$(REF_C:%.c=$(BUILD)/ref-$r/%.o))
include src/net/proto.mk
LIB   := $(BUILD)/liblockstep.a
SO    := $(if $(SAN),,$(BUILD)/liblockstep.so)
BIN   := $(if $(CMD_C),$(BUILD)/lockstep)
MPI_SO := $(if $(filter yes,$(MPI)),$(if $(MPI_C),$(BUILD)/lockstep-mpi.so))
TESTS := $(TEST_C:%.c=$(BUILD)/%)

all: $(LIB) $(SO) $(BIN) $(MPI_SO)

$(LIB): $(OBJ)
	@rm -f $@; $(AR) rcs $@ $^
# What it shows: src/liblockstep.map
$(SO): $(OBJ) src/liblockstep.map
	@$(SAY)
	$(Q)$(CC) $(CFLAGS) -shared $(LDFLAGS) -Wl,-soname,liblockstep.so.$(SO_VERSION) -Wl,--version-script=src/liblockstep.map \
	  -Wl,-Bsymbolic-functions -Wl,-z,defs -o $@ $(OBJ) $(LDLIBS)
	@ln -sf $(@F) $@.$(SO_VERSION)
$(BUILD)/lockstep: $(CMD_C:%.c=$(BUILD)/%.o) $(LIB)
	@$(SAY)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)
# Only ranks load it, so that nothing else needs MPI; it brings what it uses of base.
$(BUILD)/lockstep-mpi.so: $(MPI_C) src/base/err.c src/base/limits.c src/base/limit_text.c src/base/mem.c src/cluster/comm.h include/lockstep/cluster/comm.h
	@mkdir -p $(@D); $(SAY)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -fvisibility=hidden -shared $(LDFLAGS) -o $@ $(filter %.c,$^) $$(pkg-config --cflags --libs ompi-c)
$(filter $(BUILD)/src/cluster/%,$(TESTS)): | $(MPI_SO)
$(BUILD)/%_test: $(BUILD)/%_test.o $(LIB)
	@$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ -lcmocka $(TEST_LIBS) $(LDLIBS)
$(BUILD)/%.o: %.c | compiler $(PROTO_H)
	@mkdir -p $(@D); $(SAY)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<
compiler:
	@command -v $(firstword $(CC)) >/dev/null || { echo "no C compiler: tools/packages.sh run (or make demo) installs what is needed"; exit 1; }
define ISA_RULE
$(BUILD)/$1/%.o: %.c
	@mkdir -p $$(@D); $$(SAY)
	$(Q)$$(CC) $$(CPPFLAGS) $$(CFLAGS) $$(FLAGS_$1) -O3 -DLK_ISA=$1 -DLK_ISA_$1=1 -MMD -MP -c -o $$@ $$<
endef
$(foreach i,$(ISAS),$(eval $(call ISA_RULE,$i)))
define REF_RULE
$(BUILD)/ref-$1/%.o: %.c
	@mkdir -p $$(@D); $$(SAY)
	$(Q)$$(CC) $$(CPPFLAGS) $$(CFLAGS) $(if $(filter fma,$1),$$(FLAGS_fma)) -DLK_REF=$1 -DLK_REF_$1=1 -MMD -MP -c -o $$@ $$<
endef
$(foreach r,$(REFS),$(eval $(call REF_RULE,$r)))
-include $(shell find $(BUILD) -path $(BUILD)/other -prune -o -name '*.d' -type f -print 2>/dev/null)

# --- tests ------------------------------------------------------------------------------------------------------------
## unit: the unit tests of FLOORS; ONLY=src/base/ini_test runs one
unit: $(if $(ONLY),$(or $(filter $(ONLY:%=$(BUILD)/%),$(TESTS)),no-such-test),$(TESTS))
	@for t in $^; do echo "== $$t"; $$t || exit 1; done
no-such-test:
	@echo "ONLY=$(ONLY) is no unit test; name one as src/base/ini_test is, without .c"; exit 1
include src/math/math.mk tests/tests.mk

# --- what users type ----------------------------------------------------------------------------------------------------
## demo: install what is missing, build, train on the King James Bible (TEXT=file: your own), kill, resume, verify, generate; STORE=URL BLOBS=URL: there
demo:
	@INSTALL=$(INSTALL) tools/packages.sh run
	@$(MAKE) --no-print-directory -s -j$$(nproc) all
	@DEMO_STORE='$(STORE)' DEMO_BLOBS='$(BLOBS)' tools/demo.sh $(BUILD)/lockstep $(TEXT)

PEERS := build/peers
$(PEERS)/ready: tests/peers/requirements.txt
	python3 -m venv $(PEERS)
	$(PEERS)/bin/pip install -q -r $<
	@touch $@
## test-peers: install PyTorch, transformers, tokenizers, tiktoken, llama.cpp into build/peers (5 GB) and compare live
test-peers: all $(BUILD)/tests/families $(BUILD)/tests/logits $(BUILD)/tests/constrain $(PEERS)/ready
	@for t in tests/peers/*_peers.py; do echo "== $$t"; $(PEERS)/bin/python $$t $(BUILD)/lockstep || exit 1; done
## bench: matrix products and attention beside the FMA peak, and the tokenizer
bench: all
	@bench/kernels.sh matmul $(shell nproc)
	@bench/kernels.sh attention $(shell nproc)
	@bench/tokenizer.sh
## bench-check: count the instructions and cache misses of fixed work (valgrind), compare with bench/instructions.txt and geometry.txt
bench-check: all $(BUILD)/bench/instructions $(BUILD)/bench/geometry
	@bench/instructions.sh $(BUILD)/lockstep
	@bench/geometry.sh $(BUILD)/lockstep --check
$(BUILD)/bench/%: bench/%.c $(LIB)
	@mkdir -p $(@D)
	@$(CC) $(CPPFLAGS) -Ibench $(CFLAGS) $(LDFLAGS) $(if $(findstring reduce,$*),$$(pkg-config --cflags ompi-c)) -o $@ $^ $(LDLIBS) $(if $(findstring reduce,$*),$$(pkg-config --libs ompi-c))
## bench-postgres: a store in PostgreSQL beside plain libpq: gets, scans, commits of 1 to 32 writers; two minutes
bench-postgres: all $(BUILD)/bench/postgres
	@BUILD=$(BUILD) bench/postgres.sh
## bench-ranks: the gradient's sum over two ranks beside MPI_Allreduce, and training steps of one rank and of two
bench-ranks: all
	@bench/reduce.sh
	@python3 bench/ranks_bench.py $(BUILD)/lockstep --peer no
## bench-peers: training steps, ranks and tokenizers beside PyTorch, tiktoken, tokenizers, gigatoken
bench-peers: all $(PEERS)/ready
	@$(PEERS)/bin/python bench/train_bench.py $(BUILD)/lockstep
	@$(PEERS)/bin/python bench/ranks_bench.py $(BUILD)/lockstep
	@PEERS=$(PEERS)/bin/python bench/tokenizer.sh

## docs: write docs/commands.md anew from the commands' own tables
docs: $(BIN)
	$(BUILD)/lockstep help --markdown >docs/commands.md

## install: program, libraries, headers, manual pages, completion (PREFIX=/usr/local, DESTDIR=)
## uninstall: take away what install put there
install uninstall: all
	@DESTDIR=$(DESTDIR) tools/install.sh $@ $(BUILD) $(PREFIX) $(VERSION) $(SO_VERSION)

## help: this list
help:
	@echo "make                 builds $(BUILD)/lockstep (installs nothing)"
	@sed -n 's/^## \([a-z0-9-]*\): \(.*\)/make \1|\2/p' $(MAKEFILE_LIST) | sort | awk -F'|' '{printf "%-20s %s\n", $$1, $$2}'

## clean: remove build/
clean:
	rm -rf build
.PHONY: all compiler unit no-such-test clean demo docs install uninstall help test-peers bench bench-ranks bench-check bench-peers bench-postgres
.SECONDARY:
.DELETE_ON_ERROR:
