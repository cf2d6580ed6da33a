/* What varies from run to run below Python, answered from the recipe, in every process of a stage.

   The loader puts this library before libc, so that these functions are found in the place of
   libc's own. It is for what `bootstrap.py` can't reach: C, C++ and Rust code, other programs,
   Python's own start. It reads MODELBUILD_SEED, MODELBUILD_THREADS and MODELBUILD_LINEAGE, and
   without a seed it only passes calls on.

   1. Random bytes come from one stream for each process, keyed by seed and lineage (see
      bootstrap.py), whichever way they are asked for: getrandom and its relatives, syscall(2),
      /dev/urandom, std::random_device. Not reached: instructions in the code itself, calls within
      libc such as mkstemp's.
   2. A process that a shell starts gets a place of its own in the lineage.
   3. Processors are as many as the recipe has threads.

   Nothing here calls malloc, dlsym or a lock: an allocator asks some of this while it starts. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#if !defined(__x86_64__) || !defined(__GLIBC__)
#error "for glibc on x86-64"
#endif

extern char **environ;
extern long __sysconf(int name);                          /* libc's own, under their other names */
extern FILE *_IO_fopen(const char *path, const char *mode);

static const char LINEAGE[] = "MODELBUILD_LINEAGE=";
static const size_t DEVICE_BYTES = 1 << 20;

static char inherited[512]; /* MODELBUILD_LINEAGE as this program found it, and passes it on */
static char place[512];     /* this process's own */
static uint64_t key, drawn;
static unsigned children;
static pid_t self;
static int threads, ready;

static long kernel(long number, long a, long b, long c, long d, long e, long f) {
    register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
    long result;
    __asm__ volatile("syscall" : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    if (result < 0 && result > -4096) {
        errno = (int)-result;
        return -1;
    }
    return result;
}

/* The stream: splitmix64, whose n-th number needs no other, so that threads need no lock. */

static uint64_t mixed(uint64_t n) {
    n = (n ^ n >> 30) * 0xbf58476d1ce4e5b9u;
    n = (n ^ n >> 27) * 0x94d049bb133111ebu;
    return n ^ n >> 31;
}

static void enter(void) { /* the stream of `place` */
    const char *seed = getenv("MODELBUILD_SEED");
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
    for (const char *each = seed; each && *each; each++) hash = (hash ^ *each) * 0x100000001b3u;
    hash *= 0x100000001b3u;
    for (const char *each = place; *each; each++) hash = (hash ^ *each) * 0x100000001b3u;
    key = mixed(hash);
    drawn = children = 0;
    self = getpid();
}

static void name_child(char *to, unsigned number) {
    if (snprintf(to, sizeof place, "%s.%u", place, number) >= (int)sizeof place)
        snprintf(to, sizeof place, "~%016llx.%u", (unsigned long long)key, number); /* too deep */
}

static void forked_parent(void) { __atomic_fetch_add(&children, 1, __ATOMIC_RELAXED); }

static void forked_child(void) {
    char mine[sizeof place];
    name_child(mine, children);
    strcpy(place, mine);
    enter();
}

static int pinned(void) {
    if (!ready && environ) { /* the first call is libc's of `start`, or another library's start */
        const char *found = getenv("MODELBUILD_LINEAGE"), *count = getenv("MODELBUILD_THREADS");
        strncpy(inherited, found ? found : "", sizeof inherited - 1);
        strcpy(place, *inherited ? inherited : "0");
        for (threads = 0; count && *count >= '0' && *count <= '9'; count++)
            threads = 10 * threads + *count - '0'; /* atoi is tied to the newest glibc */
        enter();
        ready = getenv("MODELBUILD_SEED") ? 1 : -1;
        if (ready == 1) pthread_atfork(NULL, forked_parent, forked_child);
    }
    return ready == 1;
}

__attribute__((constructor)) static void start(void) { pinned(); }

static void fill(void *to, size_t size) {
    uint64_t at = __atomic_fetch_add(&drawn, (size + 7) / 8, __ATOMIC_RELAXED);
    for (size_t done = 0; done < size; done += 8) {
        uint64_t next = mixed(key + ++at * 0x9e3779b97f4a7c15u);
        memcpy((char *)to + done, &next, size - done < 8 ? size - done : 8);
    }
}

/* 1. Random bytes */

ssize_t getrandom(void *to, size_t size, unsigned flags) {
    if (!pinned()) return kernel(SYS_getrandom, (long)to, (long)size, flags, 0, 0, 0);
    fill(to, size);
    return (ssize_t)size;
}

int getentropy(void *to, size_t size) {
    if (size > 256) return errno = EIO, -1;
    return getrandom(to, size, 0) == (ssize_t)size ? 0 : -1;
}

void arc4random_buf(void *to, size_t size) { getrandom(to, size, 0); }

uint32_t arc4random(void) {
    uint32_t value;
    getrandom(&value, sizeof value, 0);
    return value;
}

uint32_t arc4random_uniform(uint32_t bound) {
    return (uint32_t)((uint64_t)arc4random() * bound >> 32);
}

/* std::random_device::_M_getval(), which asks the processor */
unsigned _ZNSt13random_device9_M_getvalEv(void *device) { return (void)device, arc4random(); }

long syscall(long number, ...) {
    va_list rest;
    va_start(rest, number);
    long a[6];
    for (int each = 0; each < 6; each++) a[each] = va_arg(rest, long);
    va_end(rest);
    if (number == SYS_getrandom) return getrandom((void *)a[0], (size_t)a[1], (unsigned)a[2]);
    return kernel(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

static int is_device(const char *path) {
    return path && (!strcmp(path, "/dev/urandom") || !strcmp(path, "/dev/random")) && pinned();
}

/* A file of a mebibyte in the place of the endless device: descriptors of it can be passed on. */
static int device(int flags) {
    char block[4096];
    int file = (int)kernel(SYS_memfd_create, (long)"urandom", flags & O_CLOEXEC ? 1 : 0, 0, 0, 0, 0);
    for (size_t done = 0; file >= 0 && done < DEVICE_BYTES; done += sizeof block) {
        fill(block, sizeof block);
        if (pwrite(file, block, sizeof block, (off_t)done) < 0) break;
    }
    return file;
}

static int opened(int folder, const char *path, int flags, mode_t mode) {
    if ((flags & O_ACCMODE) != O_WRONLY && is_device(path)) return device(flags);
    return (int)kernel(SYS_openat, folder, (long)path, flags, mode, 0, 0);
}

/* The mode is there only where a file may be made. */
#define OPENED(folder)                                                            \
    va_list rest;                                                                 \
    va_start(rest, flags);                                                        \
    int makes = flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE;              \
    mode_t mode = makes ? va_arg(rest, mode_t) : 0;                               \
    va_end(rest);                                                                 \
    return opened(folder, path, flags, mode)

int open(const char *path, int flags, ...) { OPENED(AT_FDCWD); }
int open64(const char *path, int flags, ...) { OPENED(AT_FDCWD); }
int __open(const char *path, int flags, ...) { OPENED(AT_FDCWD); }
int __open64(const char *path, int flags, ...) { OPENED(AT_FDCWD); }
int openat(int folder, const char *path, int flags, ...) { OPENED(folder); }
int openat64(int folder, const char *path, int flags, ...) { OPENED(folder); }

/* What programs call that were compiled with _FORTIFY_SOURCE. */
int __open_2(const char *path, int flags) { return opened(AT_FDCWD, path, flags, 0); }
int __open64_2(const char *path, int flags) { return opened(AT_FDCWD, path, flags, 0); }
int __openat_2(int folder, const char *path, int flags) { return opened(folder, path, flags, 0); }
int __openat64_2(int folder, const char *path, int flags) { return opened(folder, path, flags, 0); }

FILE *fopen(const char *path, const char *mode) {
    if (*mode != 'r' || !is_device(path)) return _IO_fopen(path, mode);
    int file = device(strchr(mode, 'e') ? O_CLOEXEC : 0);
    return file < 0 ? NULL : fdopen(file, mode);
}

FILE *fopen64(const char *path, const char *mode) { return fopen(path, mode); }

/* 2. A program that passes its own place on to a child, unchanged, does not count its children:
      shells don't, Python with the bootstrap does. After a fork the child has its place already;
      after a vfork it shares this memory, and only its number tells it from its parent. A program
      that becomes another one without a fork leaves its place to it if it has not used it. */

int execve(const char *path, char *const *arguments, char *const *variables) {
    char entry[sizeof LINEAGE + sizeof place];
    size_t count = 0, at, name = sizeof LINEAGE - 1;
    while (variables && variables[count]) count++;
    for (at = 0; at < count && strncmp(variables[at], LINEAGE, name); at++) continue;
    const char *passed = at < count ? variables[at] + name : "";
    char *const *given = variables, *changed[count + 2];
    strcpy(entry, LINEAGE);
    strcpy(entry + name, place);
    if (pinned() && (getpid() != self || children || drawn))
        name_child(entry + name, __atomic_fetch_add(&children, 1, __ATOMIC_RELAXED));
    if (pinned() && !strcmp(passed, inherited) && strcmp(entry + name, *inherited ? inherited : "0")) {
        for (size_t each = 0; each < count; each++) changed[each] = variables[each];
        changed[at] = entry;
        changed[at < count ? count : count + 1] = NULL;
        given = changed;
    }
    return (int)kernel(SYS_execve, (long)path, (long)arguments, (long)given, 0, 0, 0);
}

/* 3. Processors */

int sched_getaffinity(pid_t process, size_t size, cpu_set_t *set) {
    long written = kernel(SYS_sched_getaffinity, process, (long)size, (long)set, 0, 0, 0);
    if (written < 0) return -1;
    memset((char *)set + written, 0, size - (size_t)written);
    if (!pinned() || threads < 1 || (process && process != getpid())) return 0;
    if (CPU_COUNT_S(size, set) == threads) return 0;
    if ((size_t)threads > 8 * size) return errno = EINVAL, -1;
    CPU_ZERO_S(size, set);
    for (int each = 0; each < threads; each++) CPU_SET_S(each, size, set);
    return 0;
}

int pthread_getaffinity_np(pthread_t thread, size_t size, cpu_set_t *set) {
    return (void)thread, sched_getaffinity(0, size, set) ? errno : 0;
}

long sysconf(int name) {
    int asks = name == _SC_NPROCESSORS_ONLN || name == _SC_NPROCESSORS_CONF;
    return asks && pinned() && threads > 0 ? threads : __sysconf(name);
}

int get_nprocs(void) { return (int)sysconf(_SC_NPROCESSORS_ONLN); }
int get_nprocs_conf(void) { return (int)sysconf(_SC_NPROCESSORS_CONF); }
