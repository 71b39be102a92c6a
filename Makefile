# SPDX-License-Identifier: BSD-2-Clause-Patent
# qcow2-efi: `make help` lists the targets. Everything that is made lies in $(BUILD).
#
#   build/x64   the driver and the command, linked straight to PE (no crt0, no libgnuefi); with
#               ARCH=aa64, for 64-bit Arm, build/aa64
#   build/host  the same core behind nbdkit, and the unit tests

ARCH   ?= x64
BUILD  ?= build
# A named bug for the tests to find (core/seeded.h); empty in every real build.
SEEDED ?=
# Memory for metadata of one attached image, in KiB.
CACHE_KIB ?= 1280
# Sources of the decoders; they do not depend on what is built, so every BUILD shares them.
THIRD_PARTY ?= build/third-party

PYTHON ?= /usr/bin/python3
CC     := clang
LINK   := lld-link
OUT    := $(BUILD)/$(ARCH)
HOST   := $(BUILD)/host

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

# ---- flags -----------------------------------------------------------------------------------

WARN := -Wall -Wextra -Wshadow -Wvla -Wstrict-prototypes -Wmissing-prototypes -Wimplicit-fallthrough \
        -Wcast-align -Wundef -Werror
SEED := $(if $(SEEDED),-DQC_SEEDED=$(SEEDED))

# The decoders: not our code, so no warnings, and what is not called is left out by the linker.
INFLATE := $(THIRD_PARTY)/zlib
ZSTD    := $(THIRD_PARTY)/zstd
DECODER_HEADERS := -isystem $(INFLATE) -isystem $(ZSTD)/lib
DECODER_CFLAGS  := -w -ffreestanding -ffunction-sections -include core/shims.h $(DECODER_HEADERS)

# Debian has the headers for Arm on Arm alone; sources.sh fetches them where they are asked for.
ifeq ($(ARCH),x64)
EFI_MACHINE := -target x86_64-unknown-windows -mno-red-zone
EFI_HEADERS := -isystem /usr/include/efi -isystem /usr/include/efi/x86_64
else ifeq ($(ARCH),aa64)
EFI_MACHINE := -target aarch64-unknown-windows
EFI_HEADERS := -isystem $(THIRD_PARTY)/gnu-efi/inc -isystem $(THIRD_PARTY)/gnu-efi/inc/aarch64
EFI_STAMP   := $(THIRD_PARTY)/stamp-arm
else
$(error ARCH=$(ARCH): only x64 and aa64 are known)
endif
ifneq ($(and $(filter-out x64,$(ARCH)),$(filter run boot stick test test-% conformance,$(MAKECMDGOALS))),)
$(error ARCH=$(ARCH): make $(MAKECMDGOALS) is for x64 alone; make test ONLY=aa64 tests the others)
endif

# -fno-ms-extensions: without it gnu-efi defines __attribute__ away for this target.
EFI_TARGET := $(EFI_MACHINE) -std=c11 -ffreestanding -fno-ms-extensions \
              -fshort-wchar -fno-stack-protector -fno-strict-aliasing \
              -mgeneral-regs-only -ffunction-sections -fstack-usage
EFI_CFLAGS := $(EFI_TARGET) -DGNU_EFI_USE_MS_ABI -Wframe-larger-than=1024 \
              -DQC_CACHE_KIB=$(CACHE_KIB) $(WARN) $(SEED) \
              $(EFI_HEADERS) $(DECODER_HEADERS)
# FAST_SRC apart. ZSTD_NO_INLINE would cost zstd half as much again, and save no more than this.
EFI_OPTIMIZE := -Oz
EFI_LDFLAGS := /nologo /nodefaultlib /Brepro /entry:efi_main

# C11 without a host: the core may use only what every freestanding compiler has.
HOST_TARGET := -std=c11 -O2 -g -fPIC -fvisibility=hidden
HOST_CFLAGS := $(HOST_TARGET) -D_GNU_SOURCE $(WARN) $(SEED) $(DECODER_HEADERS)
UNIT_TARGET := -std=c11 -O1 -g -fno-omit-frame-pointer \
               -fsanitize=address,undefined -fno-sanitize-recover=all
UNIT_CFLAGS := $(UNIT_TARGET) -D_GNU_SOURCE $(WARN) $(SEED) $(DECODER_HEADERS)

# ---- sources ---------------------------------------------------------------------------------

CORE_SRC    := $(sort $(wildcard core/*.c))
# Files on FAT volumes: they know nothing of the firmware, so they run on a host too.
FAT_SRC     := drivers/extents.c drivers/fat.c
DRIVER_SRC  := $(CORE_SRC) $(FAT_SRC) $(sort $(wildcard drivers/efi_*.c efi/*.c))
# The loops and the way of every request: not the smallest code, but the fastest.
FAST_SRC    := $(addprefix core/,cache.c change.c epoch.c image.c read.c table.c) drivers/efi_block.c \
               $(addprefix efi/,attach.c blockio.c medium.c request.c rt.c)
REPORT_SRC  := $(sort $(wildcard efi/command/report/*.c))
COMMAND_SRC := $(CORE_SRC) $(FAT_SRC) drivers/efi_block.c $(sort $(wildcard efi/command/*.c)) \
               $(REPORT_SRC) $(addprefix efi/,config.c config_find.c rt.c sbat.c secureboot.c)
AGENT_SRC   := $(sort $(wildcard tests/firmware/agent/*.c)) efi/rt.c
CONFORMANCE_SRC := $(sort $(wildcard tests/firmware/conformance/*.c)) efi/rt.c \
                   $(addprefix tests/firmware/agent/,find.c ports.c say.c)
SMOKE_SRC   := tests/firmware/smoke/smoke.c efi/rt.c
PLUGIN_SRC  := $(CORE_SRC) $(sort $(wildcard drivers/posix_*.c tests/nbdkit/*.c))
UNIT_LIB    := $(CORE_SRC) $(FAT_SRC) $(sort $(wildcard tests/sim/*.c)) $(filter-out tests/unit/test_%,$(sort $(wildcard tests/unit/*.c)))
UNIT_TESTS  := $(sort $(wildcard tests/unit/test_*.c))
CRASH_SRC   := $(CORE_SRC) $(sort $(wildcard tests/sim/*.c tests/crash/*.c))

# Names of objects. zstddeclib-in.c includes what its decoder is made of.
DECODERS       := inflate inftrees inffast adler32 zstddeclib-in
decoder-source  = $(if $(filter zstd%,$*),$(ZSTD)/build/single_file_libs,$(INFLATE))/$*.c

DRIVER  := $(OUT)/qcow2$(ARCH).efi
COMMAND := $(OUT)/qcow2.efi
MANUAL  := $(OUT)/qcow2.man
AGENT   := $(OUT)/agent.efi
CONFORMANCE := $(OUT)/conformance.efi
SMOKE   := $(OUT)/smoke.efi
PLUGIN  := $(HOST)/nbdkit-qcow2efi-plugin.so
RECORDER := $(HOST)/recorder.so
TOOLS   := $(HOST)/qc-check $(HOST)/qc-fat $(HOST)/qc-snapshot $(HOST)/qc-img
UNIT    := $(UNIT_TESTS:tests/unit/%.c=$(HOST)/unit/%)
CRASH   := $(HOST)/crash/crash

efi-objects  = $(patsubst %.c,$(OUT)/obj/%.obj,$(1))
host-objects = $(patsubst %.c,$(HOST)/obj/%.o,$(1))
unit-objects = $(patsubst %.c,$(HOST)/unit/obj/%.o,$(1))
crash-objects = $(patsubst %.c,$(HOST)/crash/obj/%.o,$(1))
efi-decoders  := $(DECODERS:%=$(OUT)/third-party/%.obj)
host-decoders := $(DECODERS:%=$(HOST)/third-party/%.o)
unit-decoders := $(DECODERS:%=$(HOST)/unit/third-party/%.o)

# ---- what people call ------------------------------------------------------------------------

.PHONY: help all run boot stick picture install test test-all test-seeded crash matrix parity holes size sign clean setup
help: ## lists the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

all: setup ## builds the driver, the command and the host front end [ARCH=aa64: for 64-bit Arm]
	@$(MAKE) --no-print-directory binaries

.PHONY: firmware binaries stick-binaries test-binaries
firmware: $(DRIVER) $(COMMAND) $(MANUAL) ; @:
binaries: firmware $(PLUGIN) ; @:
stick-binaries: firmware $(HOST)/qc-img ; @:
test-binaries: binaries $(AGENT) $(CONFORMANCE) $(UNIT) $(CRASH) $(RECORDER) $(TOOLS)

run: all ## boots a Linux from a qcow2 through the driver [IMAGE=zlib|zstd|overlay|rollback|debian] [LAYOUT=disk|file] [BREAK=nodriver|byte|digest]
	@$(PYTHON) tests/rig/$(if $(filter rollback,$(IMAGE)),rollback.py --build $(BUILD),$(if $(filter debian,$(IMAGE)),debian,demo).py --build $(BUILD) --layout $(or $(LAYOUT),partition) $(if $(IMAGE),--image $(IMAGE)) $(if $(BREAK),--break $(BREAK)))

boot: all ## boots OVMF with the driver and DISK=path, an image or a machine's disk [ESP=dir] [DEVICE=virtio|scsi|nvme|ahci|usb]
	@$(PYTHON) tests/rig/boot.py --build $(BUILD) --disk "$(DISK)" $(if $(ESP),--esp "$(ESP)") --device $(or $(DEVICE),virtio)

stick: setup ## makes build/stick.raw, a machine's disk that boots IMAGE=path [ROOM=2G: for the image to grow in]
	@$(MAKE) --no-print-directory stick-binaries
	@$(PYTHON) -B -m images.stick --build $(BUILD) --image "$(IMAGE)" $(if $(ROOM),--room "$(ROOM)")

picture: all ## makes a picture of the boot program's menu, build/menu.svg
	@$(PYTHON) tests/rig/picture.py --build $(BUILD)

install: setup ## copies driver, command, help and a sample configuration to \EFI\qcow2\ of ESP=folder
	@test -d "$(ESP)" || { echo "usage: make install ESP=folder, where the EFI system partition is mounted"; exit 2; }
	@$(MAKE) --no-print-directory firmware
	@mkdir -p "$(ESP)/EFI/qcow2"
	cp $(DRIVER) $(COMMAND) $(MANUAL) "$(ESP)/EFI/qcow2/"
	test -e "$(ESP)/EFI/qcow2/qcow2.conf" || cp efi/command/qcow2.conf "$(ESP)/EFI/qcow2/"

test: setup ## runs the tests, or with ONLY=name one suite or test
	@$(MAKE) --no-print-directory -j2 test-binaries
	@$(PYTHON) tests/rig/run.py --build $(BUILD) $(if $(ONLY),--only "$(ONLY)")

test-all: setup-proofs ## the long tests: all of make test, with the crash suite's floors (75 minutes at most)
	@$(MAKE) --no-print-directory -j2 test-binaries
	@$(PYTHON) tests/rig/run.py --build $(BUILD) --long

test-seeded: setup ## builds with the bug SEEDED=name and runs the tests on it: they must fail
	@test -n "$(SEEDED)" || { echo "usage: make test-seeded SEEDED=name; names: core/seeded.h"; exit 2; }
	@$(MAKE) --no-print-directory test SEEDED=$(SEEDED) BUILD=$(BUILD)/seeded/$(SEEDED)

matrix: setup ## a cover of all kinds of images, made by QEMU, changed here, checked by QEMU [FULL=1: every legal kind]
	@$(MAKE) --no-print-directory $(PLUGIN)
	@$(PYTHON) tests/host/cross.py --build $(BUILD) $(if $(FULL),--full)

parity: setup ## what the command says of images, beside qemu-img: info, map, check, snapshot -l [FULL=1: every legal kind]
	@$(MAKE) --no-print-directory $(HOST)/qc-img
	@$(PYTHON) tests/host/parity.py --build $(BUILD) $(if $(FULL),--full)

holes: setup ## replays power cuts in the shapes of QEMU's holes, on this engine and on QEMU
	@$(MAKE) --no-print-directory $(PLUGIN) $(RECORDER)
	@$(PYTHON) tests/host/holes.py --build $(BUILD)

crash: setup ## every crash state of all sequences of K=n operations [BASE=name]
	@$(MAKE) --no-print-directory $(CRASH)
	@$(CRASH) all --length $(or $(K),4) $(if $(BASE),--base $(BASE))

size: all ## sizes of the driver: file, static arrays, deepest frame, symbols it must not have
	@$(PYTHON) tests/rig/size.py --build $(BUILD) --arch $(ARCH)

sign: setup ## signs driver and command for Secure Boot with KEY=file CERT=file (both PEM)
	@test -n "$(KEY)" -a -n "$(CERT)" || { echo "usage: make sign KEY=file CERT=file"; exit 2; }
	@$(MAKE) --no-print-directory firmware
	@tests/rig/sign.sh "$(KEY)" "$(CERT)" $(OUT)/signed $(DRIVER) $(COMMAND)

.PHONY: conformance
conformance: setup ## states what UEFI asks of a disk, on an image's [DISK=virtio|nvme] or on OVMF's own [TARGET=parent]
	@$(MAKE) --no-print-directory $(DRIVER) $(CONFORMANCE)
	@$(PYTHON) tests/rig/conformance.py --build $(BUILD) --disk $(or $(DISK),virtio) --target $(or $(TARGET),image)

clean: ## removes build/ and nothing else
	rm -rf $(BUILD)

setup: ## installs the Debian packages that are missing (root or sudo), else says which
	@tests/rig/setup.sh
.PHONY: setup-proofs
setup-proofs:
	@tests/rig/setup.sh proofs

# ---- firmware binaries -----------------------------------------------------------------------

$(DRIVER): $(call efi-objects,$(DRIVER_SRC)) $(efi-decoders)
	$(LINK) $(EFI_LDFLAGS) /subsystem:efi_boot_service_driver /out:$@ $^
$(COMMAND): $(call efi-objects,$(COMMAND_SRC)) $(efi-decoders)
	$(LINK) $(EFI_LDFLAGS) /subsystem:efi_application /out:$@ $^
# The shell reads its help in UCS-2 with a mark in front.
$(MANUAL): efi/command/qcow2.man Makefile
	@mkdir -p $(@D)
	{ printf '\377\376'; sed 's/$$/\r/' $< | iconv -f UTF-8 -t UTF-16LE; } >$@
$(AGENT): $(call efi-objects,$(AGENT_SRC))
	$(LINK) $(EFI_LDFLAGS) /subsystem:efi_application /out:$@ $^
$(CONFORMANCE): $(call efi-objects,$(CONFORMANCE_SRC))
	$(LINK) $(EFI_LDFLAGS) /subsystem:efi_application /out:$@ $^
$(SMOKE): $(call efi-objects,$(SMOKE_SRC))
	$(LINK) $(EFI_LDFLAGS) /subsystem:efi_application /out:$@ $^
$(OUT)/obj/%.obj: %.c Makefile $(EFI_STAMP)
	@mkdir -p $(@D)
	$(CC) $(EFI_OPTIMIZE) $(EFI_CFLAGS) -MMD -MP -MF $(@:.obj=.d) -c $< -o $@
$(call efi-objects,$(FAST_SRC)): EFI_OPTIMIZE := -O2

# ---- host binaries ---------------------------------------------------------------------------

$(PLUGIN): $(call host-objects,$(PLUGIN_SRC)) $(host-decoders)
	$(CC) -shared -o $@ $^
# Host commands that drive what no NBD client can ask for. qc-img is the command's reports.
$(HOST)/qc-img: $(call host-objects,$(REPORT_SRC))
$(HOST)/qc-%: $(HOST)/obj/tests/host/qc_%.o $(call host-objects,$(CORE_SRC) $(FAT_SRC) drivers/posix_file.c) $(host-decoders)
	$(CC) -o $@ $^
$(RECORDER): tests/host/recorder.c Makefile
	@mkdir -p $(@D)
	$(CC) $(HOST_CFLAGS) -shared -o $@ $<
$(HOST)/obj/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(CC) $(HOST_CFLAGS) -MMD -MP -MF $(@:.o=.d) -c $< -o $@

$(HOST)/unit/test_report: $(call unit-objects,$(REPORT_SRC))
$(HOST)/unit/%: $(HOST)/unit/obj/tests/unit/%.o $(call unit-objects,$(UNIT_LIB)) $(unit-decoders)
	$(CC) $(UNIT_CFLAGS) -o $@ $^ -lcmocka -lm
$(HOST)/unit/obj/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(CC) $(UNIT_CFLAGS) -MMD -MP -MF $(@:.o=.d) -c $< -o $@

# The named bugs are chosen at run time; no sanitizer, because states a second are what counts.
$(CRASH): $(call crash-objects,$(CRASH_SRC)) $(host-decoders)
	$(CC) $(HOST_CFLAGS) -o $@ $^
$(HOST)/crash/obj/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(CC) $(HOST_CFLAGS) -DQC_SEEDS_AT_RUN_TIME -MMD -MP -MF $(@:.o=.d) -c $< -o $@

# ---- benchmarks ------------------------------------------------------------------------------

# SEED is this target's own word for the random requests; what is compiled has no part in it.
BENCH := $(HOST)/bench/player $(HOST)/bench/warm $(HOST)/bench/tracer.so $(DRIVER) $(COMMAND) $(AGENT)
.PHONY: bench bench-binaries
bench: setup ## counts what requests cost, beside QEMU [SEED=n] [ONLY=row, firmware, or growth] [JSON=1]
	@$(MAKE) --no-print-directory bench-binaries SEED= >&2
	@$(PYTHON) -B tests/bench/bench.py --build $(BUILD) $(if $(SEED),--seed $(SEED)) $(if $(ONLY),--only "$(ONLY)") $(if $(JSON),--json)
bench-binaries: $(BENCH)

$(HOST)/bench/player: $(call host-objects,$(CORE_SRC) drivers/posix_file.c tests/nbdkit/chain.c tests/bench/player.c) $(host-decoders)
	@mkdir -p $(@D)
	$(CC) -o $@ $^
# Without what valgrind cannot read of this compiler's debug information.
$(HOST)/bench/warm: $(call host-objects,$(CORE_SRC) tests/bench/warm.c) $(host-decoders)
	@mkdir -p $(@D)
	$(CC) -Wl,--strip-debug -o $@ $^
$(HOST)/bench/tracer.so: tests/bench/tracer.c Makefile
	@mkdir -p $(@D)
	$(CC) $(HOST_CFLAGS) -shared -o $@ $<

# ---- hostile images --------------------------------------------------------------------------

# With the sanitizers: what they find is a crash, and its line says where.
HOSTILE := $(HOST)/hostile/hostile
test-binaries: $(HOSTILE)
.PHONY: hostile
hostile: setup ## opens, reads and writes a copy of each image in DIR=folder and says how it went [COMPARE=1: beside QEMU]
	@test -n "$(DIR)" || { echo "usage: make hostile DIR=folder [COMPARE=1]"; exit 2; }
	@$(MAKE) --no-print-directory $(HOSTILE) >&2
	@$(PYTHON) -B tests/hostile/hostile.py --build $(BUILD) $(if $(COMPARE),--compare) "$(DIR)"

$(HOSTILE): $(call unit-objects,$(CORE_SRC) drivers/posix_file.c tests/nbdkit/chain.c tests/hostile/hostile.c) $(unit-decoders)
	@mkdir -p $(@D)
	$(CC) $(UNIT_CFLAGS) -o $@ $^

# ---- mutation --------------------------------------------------------------------------------

# The unit tests and the crash program once more, with each file that is to be changed in a library
# of its own, so that to try a change is to compile one file. A trap is the cheapest sanitizer.
MUTATE  := $(HOST)/mutate
MUTATED := $(addprefix core/,cache.c commit.c epoch.c extensions.c header.c)
MUTATE_CC := $(CC) -std=c11 -O1 -fPIC -fsanitize=undefined -fsanitize-trap=all -w -D_GNU_SOURCE \
             -iquote core $(DECODER_HEADERS)
mutate-objects = $(patsubst %.c,$(MUTATE)/obj/%.o,$(filter-out $(MUTATED),$(1)))
MUTATE_LIBS := $(MUTATED:core/%.c=$(MUTATE)/lib%.so)
MUTATE_LINK  = $(CC) -rdynamic -Wl,-rpath,$(abspath $(MUTATE)) -o $@ $^

.PHONY: mutate mutate-binaries
mutate: setup-proofs ## changes core's code in small ways that the tests must see [FILE=core/cache.c]
	@$(MAKE) --no-print-directory -j2 mutate-binaries
	@$(PYTHON) tests/proof/mutate.py --build $(BUILD) $(or $(FILE),$(MUTATED))
mutate-binaries: $(UNIT_TESTS:tests/unit/%.c=$(MUTATE)/%) $(MUTATE)/crash

$(MUTATE)/test_report: $(call mutate-objects,$(REPORT_SRC))
$(MUTATE)/test_%: $(call mutate-objects,$(UNIT_LIB)) $(MUTATE)/obj/tests/unit/test_%.o $(MUTATE_LIBS) $(host-decoders)
	$(MUTATE_LINK) -lcmocka -lm
$(MUTATE)/crash: $(call mutate-objects,$(CRASH_SRC)) $(MUTATE_LIBS) $(host-decoders)
	$(MUTATE_LINK)
$(MUTATE)/lib%.so: $(MUTATE)/obj/core/%.o
	ld -shared -soname $(@F) -o $@ $<
$(MUTATE)/obj/%.o: %.c Makefile $(THIRD_PARTY)/stamp-decoders
	@mkdir -p $(@D)
	@echo "$(MUTATE_CC)" >$(MUTATE)/flags
	$(MUTATE_CC) $(if $(filter tests/crash/%,$<),-DQC_SEEDS_AT_RUN_TIME) -MMD -MP -MF $(@:.o=.d) -c $< -o $@

# ---- fuzzing ---------------------------------------------------------------------------------

# Each target is a program of libFuzzer's; QC_SEED chooses a named bug at run time, as in CRASH.
FUZZ_TARGETS := header tables driver decode config
FUZZ      := $(FUZZ_TARGETS:%=$(HOST)/fuzz/%)
FUZZ_LIB  := tests/fuzz/disk.c tests/fuzz/seed.c
RECIPE_SRC := tests/sim/deflate.c $(filter-out $(FUZZ_LIB) tests/fuzz/target_%,$(sort $(wildcard tests/fuzz/*.c)))
FUZZ_SANITIZE := -fsanitize=address,undefined,integer -fno-sanitize-recover=all \
                 -fsanitize-ignorelist=tests/fuzz/ignored.txt
FUZZ_CHECKS := $(FUZZ_SANITIZE) -fsanitize=fuzzer-no-link
FUZZ_CFLAGS := -std=c11 -O2 -g -fno-omit-frame-pointer -D_GNU_SOURCE $(WARN) \
               -DQC_SEEDS_AT_RUN_TIME $(DECODER_HEADERS)
fuzz-objects  = $(patsubst %.c,$(HOST)/fuzz/obj/%.o,$(1))
fuzz-decoders := $(DECODERS:%=$(HOST)/fuzz/third-party/%.o)

# Prerequisites are read at once, so they are added where the names are known.
test-binaries: $(FUZZ)
.PHONY: fuzz
fuzz: setup ## fuzzes the engine for TIME=seconds (60), over all targets
	@$(MAKE) --no-print-directory -j2 $(FUZZ)
	@nice -n 15 $(PYTHON) -B tests/fuzz/fuzz.py --build $(BUILD) --time $(or $(TIME),60)

$(HOST)/fuzz/%: $(HOST)/fuzz/obj/tests/fuzz/target_%.o $(call fuzz-objects,$(CORE_SRC) $(FUZZ_LIB)) $(fuzz-decoders)
	$(CC) $(FUZZ_SANITIZE) -fsanitize=fuzzer -o $@ $^
$(HOST)/fuzz/tables $(HOST)/fuzz/driver: $(call fuzz-objects,$(RECIPE_SRC))
$(HOST)/fuzz/obj/%.o: %.c Makefile tests/fuzz/ignored.txt
	@mkdir -p $(@D)
	$(CC) $(FUZZ_CFLAGS) $(FUZZ_CHECKS) -MMD -MP -MF $(@:.o=.d) -c $< -o $@
# What is around the engine: what it does is not looked for.
$(call fuzz-objects,$(FUZZ_LIB) $(RECIPE_SRC)): FUZZ_CHECKS := -fsanitize=address
$(HOST)/fuzz/third-party/%.o: $(THIRD_PARTY)/stamp-decoders core/shims.h Makefile
	@mkdir -p $(@D)
	$(CC) -std=c11 -O1 -g -fsanitize=address $(DECODER_CFLAGS) -c $(decoder-source) -o $@
$(call fuzz-objects,core/decode.c): $(THIRD_PARTY)/stamp-decoders

# ---- coverage --------------------------------------------------------------------------------

# The core once, with counters; the unit tests and the crash program around it without any. MC/DC
# needs a newer compiler than the one that builds the driver.
COV_CC      := clang-19
COV         := $(HOST)/cov
COV_CFLAGS  := -std=c11 -O1 -g -w -D_GNU_SOURCE $(DECODER_HEADERS)
COV_COUNTED := -fprofile-instr-generate -fcoverage-mapping -fcoverage-mcdc
cov-objects  = $(patsubst %.c,$(COV)/obj/%.o,$(1))

.PHONY: cov cov-binaries
cov: setup-proofs ## says what of core/ the unit tests and the crash suite leave uncovered
	@command -v $(COV_CC) >/dev/null || { echo "cov: install the packages clang-19 llvm-19 libclang-rt-19-dev"; exit 1; }
	@$(MAKE) --no-print-directory -j2 cov-binaries
	@$(PYTHON) -B tests/proof/cover.py --build $(BUILD)
cov-binaries: $(UNIT_TESTS:tests/unit/%.c=$(COV)/%) $(COV)/crash

$(COV)/test_report: $(call cov-objects,$(REPORT_SRC))
$(COV)/test_%: $(COV)/obj/tests/unit/test_%.o $(call cov-objects,$(UNIT_LIB)) $(host-decoders)
	$(COV_CC) $(COV_COUNTED) -o $@ $^ -lcmocka -lm
$(COV)/crash: $(call cov-objects,$(CRASH_SRC)) $(host-decoders)
	$(COV_CC) $(COV_COUNTED) -o $@ $^
$(COV)/obj/%.o: %.c Makefile $(THIRD_PARTY)/stamp-decoders
	@mkdir -p $(@D)
	$(COV_CC) $(COV_CFLAGS) $(if $(filter core/%,$<),$(COV_COUNTED)) \
	    $(if $(filter tests/crash/%,$<),-DQC_SEEDS_AT_RUN_TIME) -MMD -MP -MF $(@:.o=.d) -c $< -o $@

# ---- proofs ----------------------------------------------------------------------------------

.PHONY: proof
proof: setup-proofs ## three static analyzers over the driver, and what is proved for every input (8 minutes)
	@$(PYTHON) tests/rig/run.py --build $(BUILD) --long --only proof/

# ---- decoders --------------------------------------------------------------------------------

# sources.sh writes a stamp last. Compilers leave headers of -isystem out of the dependency files,
# so who includes them depends on the stamp too.
$(THIRD_PARTY)/stamp-%: tests/rig/sources.sh
	@$< $(THIRD_PARTY) $*
$(foreach kind,efi host unit crash,$(call $(kind)-objects,core/decode.c)): $(THIRD_PARTY)/stamp-decoders
$(call unit-objects,tests/unit/test_decode.c): $(THIRD_PARTY)/stamp-decoders

$(OUT)/third-party/%.obj: $(THIRD_PARTY)/stamp-decoders core/shims.h Makefile
	@mkdir -p $(@D)
	$(CC) $(EFI_OPTIMIZE) $(EFI_TARGET) $(DECODER_CFLAGS) -c $(decoder-source) -o $@
$(HOST)/third-party/%.o: $(THIRD_PARTY)/stamp-decoders core/shims.h Makefile
	@mkdir -p $(@D)
	$(CC) $(HOST_TARGET) $(DECODER_CFLAGS) -c $(decoder-source) -o $@
$(HOST)/unit/third-party/%.o: $(THIRD_PARTY)/stamp-decoders core/shims.h Makefile
	@mkdir -p $(@D)
	$(CC) $(UNIT_TARGET) $(DECODER_CFLAGS) -c $(decoder-source) -o $@

.SECONDARY:
-include $(shell find $(BUILD)/$(ARCH) $(BUILD)/host -name '*.d' 2>/dev/null)
