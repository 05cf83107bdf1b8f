/* Loaded first (LD_PRELOAD), it is a file system without modes, hard links and flushing, as CIFS,
   FUSE and mounted buckets are: each of these calls fails with the number in FLAT_ERRNO. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
static int refuse(void) { const char *n = getenv("FLAT_ERRNO"); errno = n ? atoi(n) : EPERM; return -1; }
int chmod(const char *p, mode_t m) { (void)p; (void)m; return refuse(); }
int fchmod(int f, mode_t m) { (void)f; (void)m; return refuse(); }
int fchmodat(int d, const char *p, mode_t m, int n) { (void)d; (void)p; (void)m; (void)n; return refuse(); }
int link(const char *a, const char *b) { (void)a; (void)b; return refuse(); }
int linkat(int a, const char *b, int c, const char *d, int n) { (void)a; (void)b; (void)c; (void)d; (void)n; return refuse(); }
int fsync(int f) { (void)f; return refuse(); }
int fdatasync(int f) { (void)f; return refuse(); }
