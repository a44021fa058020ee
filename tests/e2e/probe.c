/* What a shell cannot do, for tests to run inside a sandbox.

   probe socket PATH      make a Unix socket at PATH
   probe whiteout PATH    make the character device 0:0, which takes no privilege
   probe deep N           nest N directories called "d" in the current one
   probe fault            die of a segmentation fault
   probe fill N           touch N MiB of memory
   probe forks            fork without end, and wait
   probe leave            leave a process behind that writes to "out" without end
   probe stop             ignore what can be ignored, and stop
   probe chatter N        write N MiB to stdout as fast as it goes
*/
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

static int fail(const char *what)
{
    perror(what);
    return 1;
}

static int make_socket(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    int s = socket(AF_UNIX, SOCK_STREAM, 0);
    if (s < 0 || bind(s, (struct sockaddr *)&address, sizeof address) < 0)
        return fail("bind");
    return 0;
}

static int nest(long depth)
{
    while (depth--)
        if (mkdir("d", 0755) < 0 || chdir("d") < 0)
            return fail("mkdir");
    return 0;
}

static int fill(size_t mebibytes)
{
    for (size_t i = 0; i < mebibytes; i++) {
        char *block = malloc(1 << 20);
        if (!block)
            return fail("malloc");
        memset(block, 1, 1 << 20);
    }
    return 0;
}

static int chatter(size_t mebibytes)
{
    static char block[1 << 20];
    memset(block, 'x', sizeof block);
    for (size_t i = 63; i < sizeof block; i += 64)
        block[i] = '\n';
    for (size_t i = 0; i < mebibytes; i++)
        for (size_t done = 0; done < sizeof block;) {
            ssize_t count = write(1, block + done, sizeof block - done);
            if (count < 0)
                return fail("write");
            done += count;
        }
    return 0;
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    const char *argument = argc > 2 ? argv[2] : "0";
    if (!strcmp(what, "socket"))
        return make_socket(argument);
    if (!strcmp(what, "whiteout"))
        return mknod(argument, S_IFCHR | 0644, makedev(0, 0)) ? fail("mknod") : 0;
    if (!strcmp(what, "deep"))
        return nest(atol(argument));
    if (!strcmp(what, "fault")) {
        raise(SIGSEGV);
        *(volatile int *)0 = 0;
    }
    if (!strcmp(what, "fill"))
        return fill(atol(argument));
    if (!strcmp(what, "forks"))
        for (;;)
            if (fork() < 0)
                usleep(1000);
    if (!strcmp(what, "leave")) {
        if (fork())
            return 0;
        setsid();
        int out = open("out", O_WRONLY | O_CREAT, 0644);
        for (;;)
            if (pwrite(out, "changed", 7, 0) < 0)
                return fail("pwrite");
    }
    if (!strcmp(what, "stop")) {
        for (int number = 1; number < 32; number++)
            signal(number, SIG_IGN);
        for (;;)
            raise(SIGSTOP);
    }
    if (!strcmp(what, "chatter"))
        return chatter(atol(argument));
    fprintf(stderr, "unknown: %s\n", what);
    return 2;
}
