// A stand-in for the CUDA driver, for benches/gpu-host.sh: it answers as a driver with one H200 does, keeps memory on the
// host, loads kernels and runs none. What is left of a training step is what it costs the host. As libcuda.so.1 in a folder
// of LD_LIBRARY_PATH:
//
//   cc -O2 -shared -fPIC -o libcuda.so.1 cuda-stand-in.c
//
// STAND_IN_LOG names a file for the number of launches at each read of the device, and the totals; STAND_IN_PTX a folder
// for every kernel that is loaded. A launch that a device would refuse is refused.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

typedef int Result;
typedef uint64_t Pointer;

static const size_t MEMORY = 150754820096ull;
static const size_t COPIED = 4 << 20; // larger copies are weights, whose values nothing reads
static const int SHARED = 232448, OUT_OF_MEMORY = 2, INVALID = 1;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static size_t in_use, most_in_use;
static long launches, modules;
static uint64_t device_time; // nanoseconds that kernels are said to have taken

static FILE *log_file(void) {
  static FILE *file;
  if (!file) {
    const char *path = getenv("STAND_IN_LOG");
    file = fopen(path ? path : "/dev/null", "w");
    setvbuf(file, 0, _IOLBF, 0);
  }
  return file;
}

static uint64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000ull + time.tv_nsec + device_time;
}

// The device.
Result cuInit(unsigned flags) { return 0; }
Result cuDriverGetVersion(int *version) { *version = 13000; return 0; }
Result cuDeviceGetCount(int *count) { *count = 1; return 0; }
Result cuDeviceGet(int *device, int index) { *device = index; return 0; }
Result cuDeviceGetName(char *name, int length, int device) { snprintf(name, length, "stand-in for an H200"); return 0; }
Result cuDeviceGetUuid_v2(void *id, int device) { memset(id, 7, 16); return 0; }
Result cuDeviceGetUuid(void *id, int device) { return cuDeviceGetUuid_v2(id, device); }
Result cuDeviceGetPCIBusId(char *id, int length, int device) { snprintf(id, length, "0000:00:00.0"); return 0; }
Result cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = MEMORY; return 0; }
Result cuDeviceGetAttribute(int *value, int attribute, int device) {
  switch (attribute) {
    case 1: case 2: case 3: *value = 1024; break;         // threads of a block, in x and y
    case 4: *value = 64; break;                           // in z
    case 5: *value = 2147483647; break;                   // blocks of a grid in x
    case 6: case 7: case 12: *value = 65535 + (attribute == 12); break; // in y and z; registers of a block
    case 8: *value = 49152; break;                        // shared memory of a block
    case 10: *value = 32; break;                          // threads of a warp
    case 13: *value = 1980000; break;                     // clock in kHz
    case 16: *value = 132; break;                         // multiprocessors
    case 36: *value = 2619000; break;                     // clock of the memory in kHz
    case 37: *value = 6144; break;                        // width of its bus
    case 39: *value = 2048; break;                        // threads of a multiprocessor
    case 75: *value = 9; break;                           // compute capability 9.0
    case 76: *value = 0; break;
    case 81: *value = 233472; break;                      // shared memory of a multiprocessor
    case 97: *value = SHARED; break;                      // of a block that asks for it
    case 115: *value = 1; break;                          // memory pools
    default: *value = 0;
  }
  return 0;
}

// Contexts, streams and events.
Result cuDevicePrimaryCtxRetain(void **context, int device) { *context = (void *)0x1000; return 0; }
Result cuDevicePrimaryCtxRelease_v2(int device) { return 0; }
Result cuCtxSetCurrent(void *context) { return 0; }
Result cuCtxGetCurrent(void **context) { *context = (void *)0x1000; return 0; }
Result cuCtxSynchronize(void) { return 0; }
Result cuCtxGetStreamPriorityRange(int *least, int *greatest) { *least = 0; *greatest = -5; return 0; }
Result cuStreamCreate(void **stream, unsigned flags) { *stream = malloc(8); return 0; }
Result cuStreamCreateWithPriority(void **stream, unsigned flags, int priority) { return cuStreamCreate(stream, flags); }
Result cuStreamDestroy_v2(void *stream) { return 0; }
Result cuStreamSynchronize(void *stream) { return 0; }
Result cuStreamWaitEvent(void *stream, void *event, unsigned flags) { return 0; }
Result cuStreamIsCapturing(void *stream, int *status) { *status = 0; return 0; }
Result cuEventCreate(void **event, unsigned flags) { *event = malloc(8); return 0; }
Result cuEventDestroy_v2(void *event) { free(event); return 0; }
Result cuEventRecord(void *event, void *stream) { *(uint64_t *)event = now(); return 0; }
Result cuEventSynchronize(void *event) { return 0; }
Result cuEventQuery(void *event) { return 0; }
Result cuEventElapsedTime(float *milliseconds, void *from, void *to) {
  *milliseconds = (float)((*(uint64_t *)to - *(uint64_t *)from) / 1e6);
  return 0;
}
Result cuEventElapsedTime_v2(float *milliseconds, void *from, void *to) { return cuEventElapsedTime(milliseconds, from, to); }
// NVRTC asks for tables that no document names, and does without.
Result cuGetExportTable(const void **table, const void *id) { *table = 0; return 500; }
Result cuGetErrorName(int error, const char **name) { *name = "CUDA_ERROR_OF_STAND_IN"; return 0; }
Result cuGetErrorString(int error, const char **text) { *text = "refused by the stand-in for the driver"; return 0; }

// Memory: pages that are there once something is written to them.
static struct { Pointer start; size_t bytes; } live[1 << 16];
static int live_count;
Result cuMemAlloc_v2(Pointer *pointer, size_t bytes) {
  pthread_mutex_lock(&lock);
  void *pages = MAP_FAILED;
  if (in_use + bytes <= MEMORY && live_count < 1 << 16)
    pages = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (pages != MAP_FAILED) {
    live[live_count].start = *pointer = (Pointer)pages;
    live[live_count++].bytes = bytes;
    in_use += bytes;
    if (in_use > most_in_use) most_in_use = in_use;
  }
  pthread_mutex_unlock(&lock);
  return pages == MAP_FAILED ? OUT_OF_MEMORY : 0;
}
Result cuMemFree_v2(Pointer pointer) {
  pthread_mutex_lock(&lock);
  for (int index = 0; index < live_count; index++)
    if (live[index].start == pointer) {
      in_use -= live[index].bytes;
      munmap((void *)pointer, live[index].bytes);
      live[index] = live[--live_count];
      break;
    }
  pthread_mutex_unlock(&lock);
  return 0;
}
Result cuMemAllocAsync(Pointer *pointer, size_t bytes, void *stream) { return cuMemAlloc_v2(pointer, bytes); }
Result cuMemFreeAsync(Pointer pointer, void *stream) { return cuMemFree_v2(pointer); }
Result cuMemAllocHost_v2(void **pointer, size_t bytes) { *pointer = malloc(bytes); return 0; }
Result cuMemHostAlloc(void **pointer, size_t bytes, unsigned flags) { return cuMemAllocHost_v2(pointer, bytes); }
Result cuMemFreeHost(void *pointer) { free(pointer); return 0; }
Result cuMemGetInfo_v2(size_t *free_bytes, size_t *total) { *total = MEMORY; *free_bytes = MEMORY - in_use; return 0; }
static Result copy(void *to, const void *from, size_t bytes) {
  if (bytes < COPIED) memcpy(to, from, bytes);
  return 0;
}
Result cuMemcpyHtoDAsync_v2(Pointer to, const void *from, size_t bytes, void *stream) { return copy((void *)to, from, bytes); }
Result cuMemcpyDtoDAsync_v2(Pointer to, Pointer from, size_t bytes, void *stream) { return copy((void *)to, (void *)from, bytes); }
Result cuMemcpyHtoD_v2(Pointer to, const void *from, size_t bytes) { return copy((void *)to, from, bytes); }
Result cuMemcpyDtoH_v2(void *to, Pointer from, size_t bytes) { memcpy(to, (void *)from, bytes); return 0; }
Result cuMemcpyDtoHAsync_v2(void *to, Pointer from, size_t bytes, void *stream) {
  fprintf(log_file(), "read %zu bytes after %ld launches\n", bytes, launches);
  return cuMemcpyDtoH_v2(to, from, bytes);
}
Result cuMemsetD8Async(Pointer to, unsigned char value, size_t bytes, void *stream) { memset((void *)to, value, bytes); return 0; }
struct Copy2D {
  size_t from_x, from_y; int from_type; const void *from_host; Pointer from_device; void *from_array; size_t from_pitch;
  size_t to_x, to_y; int to_type; void *to_host; Pointer to_device; void *to_array; size_t to_pitch;
  size_t width, height;
};
Result cuMemcpy2DAsync_v2(const struct Copy2D *form, void *stream) {
  const int HOST = 1;
  const char *from = form->from_type == HOST ? form->from_host : (const char *)form->from_device;
  char *to = form->to_type == HOST ? form->to_host : (char *)form->to_device;
  from += form->from_y * form->from_pitch + form->from_x;
  to += form->to_y * form->to_pitch + form->to_x;
  if (form->height * form->width < COPIED)
    for (size_t row = 0; row < form->height; row++) memcpy(to + row * form->to_pitch, from + row * form->from_pitch, form->width);
  return 0;
}

// Kernels.
struct Kernel { long number; unsigned threads[3]; uint64_t nanoseconds; };
Result cuModuleLoadData(void **module, const void *image) {
  struct Kernel *kernel = calloc(1, sizeof *kernel);
  kernel->number = __sync_fetch_and_add(&modules, 1);
  const char *threads = strstr(image, ".reqntid"), *folder = getenv("STAND_IN_PTX");
  if (threads) {
    kernel->threads[0] = kernel->threads[1] = kernel->threads[2] = 1;
    sscanf(threads, ".reqntid %u, %u, %u", &kernel->threads[0], &kernel->threads[1], &kernel->threads[2]);
  }
  if (folder) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%05ld.ptx", folder, kernel->number);
    FILE *file = fopen(path, "w");
    if (file) { fputs(image, file); fclose(file); }
  }
  *module = kernel;
  return 0;
}
Result cuModuleUnload(void *module) { return 0; }
Result cuModuleGetFunction(void **function, void *module, const char *name) {
  struct Kernel *kernel = module;
  // The program measures how fast the device is, and what is fastest: the first must end, the second decides by chance.
  kernel->nanoseconds = strstr(name, "throughput") ? 100000000 : strstr(name, "matmul") ? 200000 : 20000;
  *function = module;
  return 0;
}
Result cuFuncSetAttribute(void *function, int attribute, int value) { return attribute == 8 && value > SHARED ? INVALID : 0; }
Result cuFuncGetAttribute(int *value, int attribute, void *function) { *value = 0; return 0; }
Result cuLaunchKernel(void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned x, unsigned y, unsigned z,
                      unsigned shared, void *stream, void **parameters, void **extra) {
  struct Kernel *kernel = function;
  __sync_fetch_and_add(&launches, 1);
  __sync_fetch_and_add(&device_time, kernel->nanoseconds);
  int fits = grid_x && grid_y && grid_z && grid_x <= 2147483647u && grid_y <= 65535 && grid_z <= 65535 && x && y && z &&
             x * y * z <= 1024 && z <= 64;
  int as_compiled = !kernel->threads[0] || (x == kernel->threads[0] && y == kernel->threads[1] && z == kernel->threads[2]);
  if (fits && as_compiled) return 0;
  fprintf(log_file(), "refused: kernel %05ld, grid %u %u %u, block %u %u %u\n", kernel->number, grid_x, grid_y, grid_z, x, y, z);
  return INVALID;
}
Result cuLaunchHostFunc(void *stream, void (*function)(void *), void *data) { function(data); return 0; }

__attribute__((destructor)) static void totals(void) {
  fprintf(log_file(), "%ld launches, %ld kernels, at most %zu bytes\n", launches, modules, most_in_use);
}
