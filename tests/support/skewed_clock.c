/* A wall clock that is wrong by as many nanoseconds as the file SKEW_FOLDER/PROGRAM holds: 8 bytes,
   an int64 in native order, read anew at each look. The program makes it. Loaded by LD_PRELOAD;
   other clocks stay as they are. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *skew_ns;

__attribute__((constructor)) static void load(void) {
  const char *folder = getenv("SKEW_FOLDER");
  char path[4096];
  snprintf(path, sizeof path, "%s/%s", folder ? folder : "", program_invocation_short_name);
  int file = folder ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
  if (file < 0) return;
  void *at = MAP_FAILED;
  if (!ftruncate(file, sizeof *skew_ns))
    at = mmap(NULL, sizeof *skew_ns, PROT_READ, MAP_SHARED, file, 0);
  if (at != MAP_FAILED) skew_ns = at;
  close(file);
}

static int64_t skew(void) { return skew_ns ? *skew_ns : 0; }

int clock_gettime(clockid_t clock, struct timespec *now) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  int failed = real ? real(clock, now) : (int)syscall(SYS_clock_gettime, clock, now);
  if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
    int64_t ns = (int64_t)now->tv_sec * 1000000000 + now->tv_nsec + skew();
    now->tv_sec = ns / 1000000000;
    now->tv_nsec = ns % 1000000000;
  }
  return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  (void)zone;
  struct timespec exact;
  clock_gettime(CLOCK_REALTIME, &exact);
  now->tv_sec = exact.tv_sec;
  now->tv_usec = exact.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *at) {
  struct timespec exact;
  clock_gettime(CLOCK_REALTIME, &exact);
  if (at) *at = exact.tv_sec;
  return exact.tv_sec;
}
