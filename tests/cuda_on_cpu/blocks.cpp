// Runs the blocks of a launch: fibers for their threads, the rules of barriers and warps, shared memory.
//
// Compiled without sanitizers, which thus see the kernels' accesses and none of these. They are told what a barrier
// orders. Nothing orders two blocks: for the thread sanitizer their threads run at once.
#include "blocks.h"

#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "sanitizers.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace cuda_on_cpu {
namespace {

constexpr size_t kStackBytes = 256 * 1024;
// The blocks of a launch take turns with so many sets of fibers: one set would make two blocks one thread to the
// thread sanitizer.
constexpr int kSets = sanitizers::kThread ? 3 : 1;

enum class State { kReady, kAtBarrier, kAtWarp, kEnded };

struct Fiber {
  void* jump[5];
  char* stack = nullptr;
  void* sanitized = nullptr;  // what the thread sanitizer calls it
  bool fresh = true;          // nothing lies on its stack
  State state = State::kEnded;
  Site site = {};
  int vote = 0;
  uint32_t mask = 0;  // the lanes of its warp for whom it waits
  uint64_t gave = 0;
  int meetings = 0;  // how often it has waited for lanes
  Given given = {};
  uint32_t parity = 0;  // bit i: of lane i's meetings
};

struct Block {
  uint64_t number = 0;  // in the process
  std::vector<Fiber>* fibers = nullptr;
  Slot dynamic;
  size_t dynamic_bytes = 0, shared_bytes = 0;
  std::vector<void*> memory;
  char* orders = nullptr;  // places by which the thread sanitizer is told what barriers order
  int barriers = 0;        // that were passed
  Vote vote = Vote::kNone;
  int votes = 0;
};

std::vector<Fiber> sets[kSets];
Block block;
void (*kernel_body)(void*);
void* kernel_closure;
bool failed;
Fiber* current;  // null in the scheduler
int current_thread;
void* scheduler[5];
void* scheduler_sanitized;
sanitizers::Stack scheduler_stack;
ucontext_t starting;
char launch_end, fences;

// GCC's own setjmp and longjmp make no system call, where swapcontext makes two. noipa: the compiler must believe that
// whoever is called here uses every register.
__attribute__((noipa, noreturn)) void jump(void** to) { __builtin_longjmp(to, 1); }
__attribute__((noipa)) void swap(void** from, void** to) {
  if (!__builtin_setjmp(from)) jump(to);
}
__attribute__((noipa)) void enter(void** from, ucontext_t* to) {
  if (!__builtin_setjmp(from)) setcontext(to);
}

void wait(State state) {
  Fiber& self = *current;
  self.state = state;
  sanitizers::leaving(scheduler_sanitized, scheduler_stack);
  swap(self.jump, scheduler);
  sanitizers::arrived();
}

void live() {
  scheduler_stack = sanitizers::arrived();
  for (;;) {
    sanitizers::after(block.orders);
    kernel_body(kernel_closure);
    sanitizers::before(&launch_end);
    wait(State::kEnded);
  }
}

void give_stack(Fiber& fiber) {
  // A page that nobody may touch lies below: a stack that is too small is a fault, not an overrun.
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  void* memory = mmap(nullptr, page + kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED || mprotect(memory, page, PROT_NONE) != 0) std::abort();
  fiber.stack = static_cast<char*>(memory) + page;
  fiber.sanitized = sanitizers::new_fiber();
}

void resume(int thread) {
  Fiber& fiber = (*block.fibers)[thread];
  if (fiber.stack == nullptr) give_stack(fiber);
  const int x = static_cast<int>(blockDim.x), y = static_cast<int>(blockDim.y);
  threadIdx = make_uint3(thread % x, thread / x % y, thread / x / y);
  current = &fiber, current_thread = thread;
  if (fiber.fresh) {
    fiber.fresh = false;
    getcontext(&starting);
    starting.uc_stack.ss_sp = fiber.stack, starting.uc_stack.ss_size = kStackBytes, starting.uc_link = nullptr;
    makecontext(&starting, live, 0);
    sanitizers::leaving(fiber.sanitized, {fiber.stack, kStackBytes});
    enter(scheduler, &starting);
  } else {
    sanitizers::leaving(fiber.sanitized, {fiber.stack, kStackBytes});
    swap(scheduler, fiber.jump);
  }
  sanitizers::arrived();
  current = nullptr;
}

void stop(cudaError_t error, const char* what, Site site) {
  failed = true;
  note_failure(error, what, site);
}

bool same(Site a, Site b) { return a.line == b.line && std::strcmp(a.file, b.file) == 0; }

char* barrier_order(int barriers) { return block.orders + 1 + barriers % 2; }
char* lane_order(int thread, int meetings) { return block.orders + 3 + 2 * thread + meetings % 2; }

// Whether all lanes for whom `first` waits are there too or have ended; if so, they go on.
bool release_lanes(Fiber* warp, int lanes, const Fiber& first) {
  Given given = {};
  uint32_t parity = 0;
  for (int i = 0; i < lanes; ++i) {
    const Fiber& lane = warp[i];
    if (!(first.mask >> i & 1u) || lane.state == State::kEnded) continue;
    if (lane.state != State::kAtWarp || lane.mask != first.mask || !same(lane.site, first.site)) return false;
    given.value[i] = lane.gave;
    given.lanes |= 1u << i;
    parity |= static_cast<uint32_t>(lane.meetings & 1) << i;
  }
  for (int i = 0; i < lanes; ++i) {
    if (given.lanes >> i & 1u) warp[i].given = given, warp[i].parity = parity, warp[i].state = State::kReady;
  }
  return true;
}

bool release_warps() {
  const sanitizers::Unnoticed unnoticed;
  const int threads = static_cast<int>(block.fibers->size());
  bool any = false;
  for (int i = 0; i < threads; ++i) {
    Fiber* warp = block.fibers->data() + i / 32 * 32;
    Fiber& fiber = (*block.fibers)[i];
    if (fiber.state == State::kAtWarp) any |= release_lanes(warp, std::min(32, threads - i / 32 * 32), fiber);
  }
  return any;
}

// Nobody can run. Lets the block pass its barrier; false where it has ended or hangs, which is noted.
bool release_barrier() {
  const Fiber* waiting = nullptr;
  bool ended = false;
  block.votes = 0;
  for (const Fiber& fiber : *block.fibers) {
    if (fiber.state == State::kAtWarp) {
      stop(cudaErrorLaunchFailure, "a lane waits in vain for others of its mask", fiber.site);
      return false;
    }
    ended |= fiber.state == State::kEnded;
    if (fiber.state == State::kEnded) continue;
    if (waiting != nullptr && !same(waiting->site, fiber.site)) {
      stop(cudaErrorLaunchFailure, "threads of a block wait at different barriers", fiber.site);
      return false;
    }
    waiting = &fiber;
    block.votes += fiber.vote;
  }
  if (waiting == nullptr) return false;
  if (ended) {
    stop(cudaErrorLaunchFailure, "threads have ended while others wait at a barrier", waiting->site);
    return false;
  }
  const int threads = static_cast<int>(block.fibers->size());
  if (block.vote == Vote::kAnd) block.votes = block.votes == threads;
  if (block.vote == Vote::kOr) block.votes = block.votes > 0;
  ++block.barriers;
  for (Fiber& fiber : *block.fibers) fiber.state = State::kReady;
  return true;
}

void run_block(const Config& config, std::vector<int>& turn, std::mt19937* shuffle) {
  for (Fiber& fiber : *block.fibers) fiber.state = State::kReady, fiber.meetings = 0;
  ++block.number;
  block.dynamic_bytes = config.shared, block.shared_bytes = 0, block.barriers = 0;
  block.orders = static_cast<char*>(std::malloc(3 + 2 * turn.size()));
  block.memory.push_back(block.orders);
  sanitizers::before(block.orders);
  do {
    do {
      if (shuffle != nullptr) std::shuffle(turn.begin(), turn.end(), *shuffle);
      for (const int thread : turn) {
        if ((*block.fibers)[thread].state == State::kReady) resume(thread);
        if (failed) return;
      }
    } while (release_warps());
  } while (release_barrier());
}

void free_memory() {
  for (void* memory : block.memory) std::free(memory);
  block.memory.clear();
}

}  // namespace

void run_blocks(const Config& config, size_t shared_limit, void (*body)(void*), void* closure) {
  kernel_body = body, kernel_closure = closure, failed = false;
  gridDim = config.grid, blockDim = config.block;
  scheduler_sanitized = sanitizers::this_fiber();
  // 0: threads and blocks as they are counted; 1: the other way round; more: shuffled, each number in another way.
  const char* asked = std::getenv("CUDA_ON_CPU_ORDER");
  const unsigned int order = asked == nullptr ? 0 : static_cast<unsigned int>(std::strtoul(asked, nullptr, 10));
  std::mt19937 random(order);
  std::vector<int> turn(config.block.x * config.block.y * config.block.z);
  std::iota(turn.begin(), turn.end(), 0);
  std::vector<uint64_t> blocks(static_cast<uint64_t>(config.grid.x) * config.grid.y * config.grid.z);
  std::iota(blocks.begin(), blocks.end(), 0);
  if (order == 1) std::reverse(turn.begin(), turn.end()), std::reverse(blocks.begin(), blocks.end());
  if (order > 1) std::shuffle(blocks.begin(), blocks.end(), random);
  for (size_t i = 0; i < blocks.size() && !failed; ++i) {
    const uint64_t b = blocks[i], x = config.grid.x, y = config.grid.y;
    blockIdx = make_uint3(b % x, b / x % y, b / x / y);
    block.fibers = &sets[i % kSets];
    block.fibers->resize(turn.size());
    run_block(config, turn, order > 1 ? &random : nullptr);
    if (!failed && block.shared_bytes > shared_limit) {
      stop(cudaErrorInvalidValue, "a block has more shared memory than it was granted", {});
    }
    // Another block at the same place would seem to race with this one.
    if (!sanitizers::kThread) free_memory();
  }
  sanitizers::after(&launch_end);
  free_memory();
  if (!failed) return;
  for (auto& set : sets) {
    for (Fiber& fiber : set) fiber.fresh = true;  // what stands on the stacks is never gone on with
  }
}

void fail(cudaError_t error, const char* what, Site site) {
  stop(error, what, site);
  if (current == nullptr) std::abort();  // not in a kernel: the text is on stderr
  wait(State::kEnded);
  std::abort();
}

int barrier(Site site, Vote vote, int value) {
  current->site = site, current->vote = value;
  block.vote = vote;
  char* order = barrier_order(block.barriers);
  sanitizers::before(order);
  wait(State::kAtBarrier);
  sanitizers::after(order);
  return block.votes;
}

const Given& exchange(uint32_t mask, uint64_t value, bool ordered, Site site) {
  if (!(mask >> lane() & 1u)) fail(cudaErrorLaunchFailure, "a lane is not in the mask that it gives", site);
  Fiber& self = *current;
  const int thread = current_thread, first = thread / 32 * 32;
  self.site = site, self.mask = mask, self.gave = value;
  if (ordered) sanitizers::before(lane_order(thread, self.meetings));
  wait(State::kAtWarp);
  if (ordered) {
    for (int i = 0; i < 32; ++i) {
      if (self.given.lanes >> i & 1u) sanitizers::after(lane_order(first + i, self.parity >> i & 1u));
    }
  }
  ++self.meetings;
  return self.given;
}

int lane() { return current_thread % 32; }

void fence() {
  sanitizers::before(&fences);
  sanitizers::after(&fences);
}

void* shared_variable(Slot& slot, size_t bytes, size_t alignment) {
  if (slot.block == block.number) return slot.variable;
  const sanitizers::Unnoticed unnoticed;
  const size_t whole = std::max<size_t>(alignment, 16), skipped = alignment < 16 ? alignment : 0;
  void* memory = nullptr;
  if (posix_memalign(&memory, whole, skipped + std::max<size_t>(bytes, 1)) != 0) std::abort();
  block.memory.push_back(memory);
  block.shared_bytes += bytes;
  slot = {block.number, static_cast<char*>(memory) + skipped};
  std::memset(slot.variable, 0xff, bytes);  // NaN
  return slot.variable;
}

void* dynamic_variable(size_t alignment) { return shared_variable(block.dynamic, block.dynamic_bytes, alignment); }

}  // namespace cuda_on_cpu
