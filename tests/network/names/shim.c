/* A name service that a test commands, in place of the C library's.
 *
 * NAMES_PLAN names a file that says what a lookup finds: numeric addresses,
 * `fail`, `hang` until it says something else, or `stuck`: that lookup never returns.
 * With `threadless` there are no more threads. NAMES_LOG names one that gets a
 * line for each lookup. Numeric hosts go to the C library. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int (*lookup)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
typedef int (*create)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);

static int is_numeric(const char *host)
{
    unsigned char address[sizeof(struct in6_addr)];
    return inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1;
}

static void read_plan(char *plan, size_t size)
{
    FILE *file = fopen(getenv("NAMES_PLAN"), "r");
    size_t length = file ? fread(plan, 1, size - 1, file) : 0;
    plan[length] = 0;
    if (file)
        fclose(file);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *),
        void *argument)
{
    char plan[1024];
    read_plan(plan, sizeof plan);
    if (!strncmp(plan, "threadless", 10))
        return EAGAIN;
    create real = (create)dlsym(RTLD_NEXT, "pthread_create");
    return real(thread, attributes, start, argument);
}

int getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
        struct addrinfo **found)
{
    lookup real = (lookup)dlsym(RTLD_NEXT, "getaddrinfo");
    if (!host || is_numeric(host))
        return real(host, service, hints, found);
    FILE *log = fopen(getenv("NAMES_LOG"), "a");
    if (log) {
        fprintf(log, "%s\n", host);
        fclose(log);
    }
    char plan[1024];
    for (read_plan(plan, sizeof plan); !strncmp(plan, "stuck", 5);)
        pause();
    for (; !strncmp(plan, "hang", 4); read_plan(plan, sizeof plan))
        usleep(5000);
    if (!strncmp(plan, "fail", 4))
        return EAI_AGAIN;
    char *addresses = plan;
    struct addrinfo **end = found;
    *found = NULL;
    char *rest = NULL;
    for (char *address = strtok_r(addresses, " \n", &rest); address;
         address = strtok_r(NULL, " \n", &rest)) {
        int error = real(address, service, hints, end);
        if (error)
            return error;
        while (*end)
            end = &(*end)->ai_next;
    }
    return *found ? 0 : EAI_NONAME;
}
