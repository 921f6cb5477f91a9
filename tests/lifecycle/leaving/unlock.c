/* The agent stops itself before it gives the instance lock back, so that a test can see
 * what it still has open; SIGCONT lets it go on. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <sys/file.h>

int flock(int fd, int operation)
{
    int (*real)(int, int) = (int (*)(int, int))dlsym(RTLD_NEXT, "flock");
    if (operation == LOCK_UN)
        raise(SIGSTOP);
    return real(fd, operation);
}
