// The part of CUDA that csrc/cuda uses, on CPU threads: its .cu files compile as plain C++ with
// this folder first on the include path, and the sanitizers see what the kernels do.
//
// A CUDA thread is a thread of a pool. kGroups groups of kThreads threads each run one block at a
// time, so two blocks are under way at once and a race between blocks shows as well as one within.
// Barriers order memory, and so does an atomic operation between two fences. Shuffles do not, as on
// the GPU, so a kernel that relies on one to publish shared memory is reported.
#pragma once

#include <pthread.h>

#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define ACCL_CUDA_ON_CPU

// Small enough for a few thousand elements to make several blocks, several tiles in a chunk and
// several chunks in a block.
#define ACCL_BLOCK_THREADS 64
#define ACCL_MAX_CHUNKS 40
#define ACCL_MAX_BLOCKS 5

#define ACCL_LAUNCH(kernel, blocks, stream, ...) \
  ((void)(stream), cuda_on_cpu::pool().launch(int(blocks), [&] { kernel(__VA_ARGS__); }))
#define ACCL_SHARED(type, name, count)                       \
  static type name##_of_groups[cuda_on_cpu::kGroups][count]; \
  type(&name)[count] = name##_of_groups[cuda_on_cpu::self().group]

#if defined(__SANITIZE_THREAD__)
extern "C" {
void AnnotateIgnoreSyncBegin(const char* file, int line);
void AnnotateIgnoreSyncEnd(const char* file, int line);
}
#else
inline void AnnotateIgnoreSyncBegin(const char*, int) {}
inline void AnnotateIgnoreSyncEnd(const char*, int) {}
#endif

struct Dimensions {
  unsigned x = 0;
};
inline thread_local Dimensions threadIdx, blockIdx, gridDim;

struct __attribute__((aligned(16), may_alias)) uint4 {
  unsigned x, y, z, w;
};
struct __attribute__((aligned(16), may_alias)) float4 {
  float x, y, z, w;
};
struct __attribute__((aligned(8), may_alias)) uint2 {
  unsigned x, y;
};

namespace cuda_on_cpu {

constexpr int kGroups = 2;
constexpr int kThreads = ACCL_BLOCK_THREADS;
constexpr int kWarp = 32;

class Barrier {
 public:
  explicit Barrier(int threads) { pthread_barrier_init(&barrier_, nullptr, threads); }
  ~Barrier() { pthread_barrier_destroy(&barrier_); }
  void wait() { pthread_barrier_wait(&barrier_); }

 private:
  pthread_barrier_t barrier_;
};

// The lanes' values on their way: two sets in turn, so that one barrier a shuffle is enough.
struct Warp {
  Barrier barrier{kWarp};
  std::atomic<uint64_t> value[2][kWarp] = {};
};

// __syncthreads() of a block: two barriers in turn. ThreadSanitizer lets a thread that wakes up
// late know what others did before they came to the barrier again, if it is the same one.
struct BlockBarrier {
  Barrier barrier[2] = {Barrier(kThreads), Barrier(kThreads)};
};

struct Self {
  int group = 0;
  BlockBarrier* block = nullptr;
  int barriers = 0;
  Warp* warp = nullptr;
  int shuffles = 0;
  bool fenced = false; // a fence was passed since the last atomic operation
  const int* atomic = nullptr; // the last atomic operation's, if no fence was passed since

  void wait_for_block() { block->barrier[barriers++ % 2].wait(); }
};
inline Self& self() {
  static thread_local Self instance;
  return instance;
}

enum class Order { kForward, kReversed, kShuffled };

class Pool {
 public:
  Order order = Order::kForward;
  int launches = 0;

  Pool() {
    for (int group = 0; group < kGroups; ++group) {
      blocks_.emplace_back(new BlockBarrier);
      for (int i = 0; i < kThreads / kWarp; ++i) warps_.emplace_back(new Warp);
    }
    for (int i = 0; i < kGroups * kThreads; ++i) threads_.emplace_back([this, i] { run(i); });
  }

  ~Pool() {
    kernel_ = nullptr;
    gate_.wait();
    for (std::thread& thread : threads_) thread.join();
  }

  void launch(int blocks, std::function<void()> kernel) {
    schedule_.resize(blocks);
    for (int i = 0; i < blocks; ++i) {
      schedule_[i] = order == Order::kReversed ? blocks - 1 - i : i;
    }
    for (int i = blocks - 1; order == Order::kShuffled && i > 0; --i) {
      std::swap(schedule_[i], schedule_[(i * 7919 + 13) % (i + 1)]);
    }
    kernel_ = std::move(kernel);
    ++launches;
    gate_.wait(); // go
    gate_.wait(); // done
  }

 private:
  void run(int index) {
    Self& me = self();
    me.group = index / kThreads;
    me.block = blocks_[me.group].get();
    me.warp = warps_[index / kWarp].get();
    threadIdx.x = index % kThreads;
    while (true) {
      gate_.wait();
      if (!kernel_) return;
      gridDim.x = unsigned(schedule_.size());
      for (size_t i = me.group; i < schedule_.size(); i += kGroups) {
        blockIdx.x = unsigned(schedule_[i]);
        kernel_();
        me.fenced = false;
        me.atomic = nullptr;
        me.wait_for_block(); // the group's next block uses the same shared memory
      }
      gate_.wait();
    }
  }

  Barrier gate_{kGroups * kThreads + 1};
  std::vector<std::unique_ptr<BlockBarrier>> blocks_;
  std::vector<std::unique_ptr<Warp>> warps_;
  std::vector<std::thread> threads_;
  std::vector<int> schedule_;
  std::function<void()> kernel_;
};

inline Pool& pool() {
  static Pool instance;
  return instance;
}

} // namespace cuda_on_cpu

// Barriers and fences know where they stand: the one that the environment variable
// CUDA_ON_CPU_WITHOUT names ("reduce.cuh:28") does nothing. planted.py takes out each in turn.
#define CUDA_ON_CPU_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

namespace cuda_on_cpu {

inline bool is_taken_out(const char* file, int line) {
  static const char* const site = std::getenv("CUDA_ON_CPU_WITHOUT");
  if (!site) return false;
  const char* const slash = std::strrchr(file, '/');
  return site == std::string(slash ? slash + 1 : file) + ":" + std::to_string(line);
}

} // namespace cuda_on_cpu

inline void __syncthreads(CUDA_ON_CPU_SITE) {
  if (!cuda_on_cpu::is_taken_out(file, line)) cuda_on_cpu::self().wait_for_block();
}

template <class T>
T __shfl_down_sync(unsigned, T x, int offset) {
  cuda_on_cpu::Self& me = cuda_on_cpu::self();
  const int lane = int(threadIdx.x) % cuda_on_cpu::kWarp;
  auto& value = me.warp->value[me.shuffles++ % 2];
  uint64_t bits = 0;
  std::memcpy(&bits, &x, sizeof(x));
  value[lane].store(bits, std::memory_order_relaxed);
  AnnotateIgnoreSyncBegin(__FILE__, __LINE__);
  me.warp->barrier.wait();
  AnnotateIgnoreSyncEnd(__FILE__, __LINE__);
  if (lane + offset < cuda_on_cpu::kWarp) {
    bits = value[lane + offset].load(std::memory_order_relaxed);
  }
  std::memcpy(&x, &bits, sizeof(x));
  return x;
}

// An atomic operation alone orders nothing. It publishes what was written before a fence that
// precedes it, and a fence that follows it makes visible what others published.
inline void __threadfence(CUDA_ON_CPU_SITE) {
  if (cuda_on_cpu::is_taken_out(file, line)) return;
  cuda_on_cpu::Self& me = cuda_on_cpu::self();
  if (me.atomic) (void)__atomic_load_n(me.atomic, __ATOMIC_ACQUIRE);
  me.atomic = nullptr;
  me.fenced = true;
}
inline int atomicAdd(int* to, int x) {
  cuda_on_cpu::Self& me = cuda_on_cpu::self();
  const int before = me.fenced ? __atomic_fetch_add(to, x, __ATOMIC_RELEASE)
                               : __atomic_fetch_add(to, x, __ATOMIC_RELAXED);
  me.fenced = false;
  me.atomic = to;
  return before;
}

namespace cuda_on_cpu {

// How many words of so many bytes the kernels stored: a vector is one word of 8 or 16. With
// CUDA_ON_CPU_WITHOUT=vectors the last bytes of each are lost.
inline std::atomic<int64_t>& words_of(size_t bytes) {
  static std::atomic<int64_t> words[17];
  return words[bytes];
}

template <class Word>
void store_word(Word* to, const Word& word) {
  static const char* const site = std::getenv("CUDA_ON_CPU_WITHOUT");
  static const bool loses = site && site == std::string("vectors");
  words_of(sizeof(Word)).fetch_add(1, std::memory_order_relaxed);
  std::memcpy(static_cast<void*>(to), &word,
              loses && sizeof(Word) >= 8 ? sizeof(Word) - 2 : sizeof(Word));
}

} // namespace cuda_on_cpu

template <class T>
T __ldcg(const T* from) {
  return *from;
}

typedef struct Stream* cudaStream_t;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1 };
inline cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t) {
  std::memset(to, value, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess ? "no error" : "invalid argument";
}
