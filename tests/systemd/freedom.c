/* What an ordinary build may do, and what a daemon's own restrictions would take from it.
 *
 *   jit         run code from memory that is writable and executable
 *   loopback    talk to oneself over 127.0.0.1
 *   debugger    trace one's own child and read its memory
 *   rest        change personality, niceness and scheduling policy; make a setgid file
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static int fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    return 1;
}

static int jit(void)
{
    static const unsigned char code[] = {0xb8, 42, 0, 0, 0, 0xc3}; /* mov eax, 42; ret */
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        return fail("mmap");
    memcpy(page, code, sizeof code);
    return ((int (*)(void))page)() == 42 ? 0 : fail("code");
}

static int loopback(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof address;
    int server = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0);
    char byte = 0;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (server < 0 || client < 0)
        return fail("socket");
    if (bind(server, (void *)&address, size) || listen(server, 1)
        || getsockname(server, (void *)&address, &size))
        return fail("listen");
    if (connect(client, (void *)&address, size))
        return fail("connect");
    int peer = accept(server, NULL, NULL);
    if (write(client, "x", 1) != 1 || read(peer, &byte, 1) != 1 || byte != 'x')
        return fail("transfer");
    return 0;
}

static volatile long secret = 0x5eed;

static int debugger(void)
{
    pid_t child = fork();
    int status;
    if (child == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
            _exit(1);
        raise(SIGSTOP);
        _exit(0);
    }
    if (waitpid(child, &status, 0) != child || !WIFSTOPPED(status))
        return fail("trace");
    errno = 0;
    if (ptrace(PTRACE_PEEKDATA, child, (void *)&secret, NULL) != 0x5eed)
        return fail("peek");
    if (ptrace(PTRACE_CONT, child, NULL, NULL) || waitpid(child, &status, 0) != child)
        return fail("continue");
    return 0;
}

static int rest(void)
{
    struct sched_param parameters = {0};
    if (personality(PER_LINUX32) < 0)
        return fail("personality");
    if (setpriority(PRIO_PROCESS, 0, 5))
        return fail("nice");
    if (sched_setscheduler(0, SCHED_BATCH, &parameters))
        return fail("scheduler");
    int file = open("setgid", O_CREAT | O_WRONLY, 0644);
    if (file < 0 || fchmod(file, 02755))
        return fail("setgid");
    return 0;
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    if (!strcmp(what, "jit"))
        return jit();
    if (!strcmp(what, "loopback"))
        return loopback();
    if (!strcmp(what, "debugger"))
        return debugger();
    return rest();
}
