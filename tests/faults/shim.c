/* Loaded first (LD_PRELOAD), it makes one file call of a process fail, and counts them.

   The calls that libraries in C, C++ and Rust make (torch writes by C++, safetensors by Rust, images
   are decoded in C) never pass through Python's files: they are met here, where all of them ask the C
   library. Only calls on files below one folder count, so the n-th is the same in each run: what
   Python imports is elsewhere. Nothing happens before `fault_arm`. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OPEN, READ, WRITE, FSYNC, RENAME, MKDIR, LINK, UNLINK, LIST, KINDS };
static const char *NAMES[KINDS] = {"open", "read", "write", "fsync", "rename", "mkdir", "link",
                                   "unlink", "list"};
/* What happens at the call: below SHORT the number of an error. */
enum { SHORT = 1000, SIGNAL = 2000 };

static char root[4096];
static int armed, wanted_kind, wanted_error, stays, log_handle = -1;
static long wanted_number, counts[KINDS], all;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* kind < 0: the n-th call of any kind; n = 0: count alone. With `stay`, later ones fail as well. */
void fault_arm(const char *folder, int kind, long number, int error, int stay, int log) {
  snprintf(root, sizeof root, "%s", folder);
  wanted_kind = kind, wanted_number = number, wanted_error = error, stays = stay, log_handle = log;
  memset(counts, 0, sizeof counts), all = 0, armed = 1;
}
void fault_disarm(void) { armed = 0; }

static int below(const char *path) {
  size_t n = strlen(root);
  return !strncmp(path, root, n) && (path[n] == '/' || !path[n]);
}
static int absolute(int folder, const char *path, char *out, size_t size) {
  char base[4096], link[64];
  ssize_t n;
  if (!path) return 0;
  if (path[0] == '/') return snprintf(out, size, "%s", path) > 0;
  if (folder == AT_FDCWD) {
    if (!getcwd(base, sizeof base)) return 0;
  } else {
    snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    if ((n = syscall(SYS_readlink, link, base, sizeof base - 1)) < 0) return 0;
    base[n] = 0;
  }
  /* `..` at the beginning only: how commands name what is beside their folder. */
  while (!strncmp(path, "../", 3)) {
    char *slash = strrchr(base, '/');
    if (slash) *slash = 0;
    path += 3;
  }
  return snprintf(out, size, "%s/%s", base, path) > 0;
}
/* The error of this call; 0: none. */
static int decide(int kind, const char *path) {
  int is_now, error = 0, saved = errno;
  if (!armed || !below(path)) return 0;
  pthread_mutex_lock(&lock);
  long number = wanted_kind < 0 ? ++all : (counts[kind]++, kind == wanted_kind ? counts[kind] : 0);
  is_now = wanted_number && number &&
           (stays ? number >= wanted_number : number == wanted_number);
  if (log_handle >= 0 && (!wanted_number || is_now)) {
    char line[4200];
    int n = snprintf(line, sizeof line, "%s %s\n", NAMES[kind], path);
    syscall(SYS_write, log_handle, line, n < (int)sizeof line ? n : (int)sizeof line - 1);
  }
  pthread_mutex_unlock(&lock);
  if (is_now) error = wanted_error;
  if (error >= SIGNAL) {
    syscall(SYS_kill, getpid(), error - SIGNAL);
    error = 0;
  }
  errno = saved;
  return error;
}
static int on_path(int kind, int folder, const char *path) {
  char full[8192];
  if (!armed || !absolute(folder, path, full, sizeof full)) return 0;
  return decide(kind, full);
}
static int on_handle(int kind, int handle) {
  char link[64], path[4096];
  if (!armed || handle == log_handle) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
  ssize_t n = syscall(SYS_readlink, link, path, sizeof path - 1);
  if (n < 0) return 0;
  path[n] = 0;
  return decide(kind, path);
}
#define REAL(name) \
  static __typeof__(&name) real; \
  if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define FAIL(error, value) do { errno = (error) >= SHORT ? EIO : (error); return value; } while (0)

#define OPENING(name, signature, folder, path, call) \
  int name signature { \
    REAL(name); \
    mode_t mode = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { va_list v; va_start(v, flags); mode = va_arg(v, mode_t); va_end(v); } \
    int error = on_path(OPEN, folder, path); \
    if (error) FAIL(error, -1); \
    return real call; \
  }
OPENING(open, (const char *path, int flags, ...), AT_FDCWD, path, (path, flags, mode))
OPENING(open64, (const char *path, int flags, ...), AT_FDCWD, path, (path, flags, mode))
OPENING(openat, (int folder, const char *path, int flags, ...), folder, path, (folder, path, flags, mode))
OPENING(openat64, (int folder, const char *path, int flags, ...), folder, path, (folder, path, flags, mode))

FILE *fopen(const char *path, const char *mode) {
  REAL(fopen);
  int error = on_path(OPEN, AT_FDCWD, path);
  if (error) FAIL(error, NULL);
  return real(path, mode);
}
FILE *fopen64(const char *path, const char *mode) {
  REAL(fopen64);
  int error = on_path(OPEN, AT_FDCWD, path);
  if (error) FAIL(error, NULL);
  return real(path, mode);
}
/* A short write leaves half; a short read is met by everybody all the time. */
#define MOVING(kind, name, result, signature, handle, size, whole, half) \
  result name signature { \
    REAL(name); \
    int error = on_handle(kind, handle); \
    if (error == SHORT && (size) > 1) return real half; \
    if (error && error != SHORT) FAIL(error, -1); \
    return real whole; \
  }
MOVING(WRITE, write, ssize_t, (int f, const void *b, size_t n), f, n, (f, b, n), (f, b, n / 2))
MOVING(WRITE, pwrite, ssize_t, (int f, const void *b, size_t n, off_t o), f, n, (f, b, n, o), (f, b, n / 2, o))
MOVING(WRITE, pwrite64, ssize_t, (int f, const void *b, size_t n, off64_t o), f, n, (f, b, n, o), (f, b, n / 2, o))
MOVING(WRITE, writev, ssize_t, (int f, const struct iovec *v, int n), f, n, (f, v, n), (f, v, n / 2))
MOVING(READ, read, ssize_t, (int f, void *b, size_t n), f, n, (f, b, n), (f, b, n / 2))
MOVING(READ, pread, ssize_t, (int f, void *b, size_t n, off_t o), f, n, (f, b, n, o), (f, b, n / 2, o))
MOVING(READ, pread64, ssize_t, (int f, void *b, size_t n, off64_t o), f, n, (f, b, n, o), (f, b, n / 2, o))
MOVING(WRITE, sendfile, ssize_t, (int t, int f, off_t *o, size_t n), t, n, (t, f, o, n), (t, f, o, n / 2))
MOVING(WRITE, sendfile64, ssize_t, (int t, int f, off64_t *o, size_t n), t, n, (t, f, o, n), (t, f, o, n / 2))
MOVING(WRITE, copy_file_range, ssize_t, (int f, off64_t *a, int t, off64_t *b, size_t n, unsigned g), t, n,
       (f, a, t, b, n, g), (f, a, t, b, n / 2, g))
/* The C library writes its own streams without asking for `write`. */
size_t fwrite(const void *b, size_t size, size_t n, FILE *file) {
  REAL(fwrite);
  int error = armed ? on_handle(WRITE, fileno(file)) : 0;
  if (error == SHORT && n > 1) return real(b, size, n / 2, file);
  if (error && error != SHORT) FAIL(error, 0);
  return real(b, size, n, file);
}
size_t fread(void *b, size_t size, size_t n, FILE *file) {
  REAL(fread);
  int error = armed ? on_handle(READ, fileno(file)) : 0;
  if (error && error != SHORT) FAIL(error, 0);
  return real(b, size, n, file);
}
#define ON_HANDLE(kind, name) \
  int name(int f) { REAL(name); int error = on_handle(kind, f); if (error) FAIL(error, -1); return real(f); }
ON_HANDLE(FSYNC, fsync)
ON_HANDLE(FSYNC, fdatasync)

#define ON_PATH(kind, name, signature, folder, path, call) \
  int name signature { REAL(name); int error = on_path(kind, folder, path); if (error) FAIL(error, -1); return real call; }
ON_PATH(RENAME, rename, (const char *a, const char *b), AT_FDCWD, b, (a, b))
ON_PATH(RENAME, renameat, (int f, const char *a, int g, const char *b), g, b, (f, a, g, b))
ON_PATH(RENAME, renameat2, (int f, const char *a, int g, const char *b, unsigned n), g, b, (f, a, g, b, n))
ON_PATH(MKDIR, mkdir, (const char *p, mode_t m), AT_FDCWD, p, (p, m))
ON_PATH(MKDIR, mkdirat, (int f, const char *p, mode_t m), f, p, (f, p, m))
ON_PATH(LINK, link, (const char *a, const char *b), AT_FDCWD, b, (a, b))
ON_PATH(LINK, linkat, (int f, const char *a, int g, const char *b, int n), g, b, (f, a, g, b, n))
ON_PATH(LINK, symlink, (const char *a, const char *b), AT_FDCWD, b, (a, b))
ON_PATH(UNLINK, unlink, (const char *p), AT_FDCWD, p, (p))
ON_PATH(UNLINK, unlinkat, (int f, const char *p, int n), f, p, (f, p, n))
ON_PATH(UNLINK, rmdir, (const char *p), AT_FDCWD, p, (p))
DIR *opendir(const char *path) {
  REAL(opendir);
  int error = on_path(LIST, AT_FDCWD, path);
  if (error) FAIL(error, NULL);
  return real(path);
}
