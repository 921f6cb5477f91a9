/* The agent stops itself right after it has hidden its socket, so that a test has
 * the time to come in that moment; SIGCONT lets it go on. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <string.h>

int rename(const char *from, const char *to)
{
    static const char hidden[] = "/.data-nadhi-agent.so";
    int (*real)(const char *, const char *) =
            (int (*)(const char *, const char *))dlsym(RTLD_NEXT, "rename");
    int result = real(from, to);
    size_t length = strlen(to), end = sizeof hidden - 1;
    if (result == 0 && length >= end && strcmp(to + length - end, hidden) == 0)
        raise(SIGSTOP);
    return result;
}
