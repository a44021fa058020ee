"""The seccomp profile of every build: what is not listed here fails with EPERM.

In the style of the container engines' default profiles, and tighter where a build needs less:
no namespaces of its own, no mounts, no keys, no BPF, no io_uring, no vsock.  Compilers, debuggers
that trace their own children, JITs, 32-bit programs and loopback sockets work.  runc ignores names
that its libseccomp does not know, so newer calls may stand here early.
"""

from __future__ import annotations

import errno
from typing import Any, Final

_ALLOWED: Final = """
read readv pread64 preadv preadv2 write writev pwrite64 pwritev pwritev2 lseek _llseek
open openat openat2 creat close close_range dup dup2 dup3 pipe pipe2 fcntl fcntl64 flock ioctl
stat stat64 lstat lstat64 fstat fstat64 fstatat64 newfstatat statx statfs statfs64 fstatfs fstatfs64
access faccessat faccessat2 getdents getdents64 readlink readlinkat getcwd chdir fchdir
mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2 link linkat symlink symlinkat
mknod mknodat chmod fchmod fchmodat fchmodat2 chown chown32 fchown fchown32 fchownat lchown lchown32
truncate truncate64 ftruncate ftruncate64 fallocate utime utimes futimesat utimensat
utimensat_time64 umask copy_file_range sendfile sendfile64 splice tee vmsplice readahead
fadvise64 fadvise64_64 sync sync_file_range syncfs fsync fdatasync msync cachestat
getxattr lgetxattr fgetxattr getxattrat listxattr llistxattr flistxattr listxattrat setxattr
lsetxattr fsetxattr setxattrat removexattr lremovexattr fremovexattr removexattrat
inotify_init inotify_init1 inotify_add_watch inotify_rm_watch
io_setup io_submit io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64
poll ppoll ppoll_time64 select _newselect pselect6 pselect6_time64 epoll_create epoll_create1
epoll_ctl epoll_ctl_old epoll_wait epoll_wait_old epoll_pwait epoll_pwait2 eventfd eventfd2
signalfd signalfd4 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime
timerfd_settime64
mmap mmap2 munmap mremap mprotect madvise process_madvise mincore brk mlock mlock2 mlockall munlock
munlockall memfd_create memfd_secret remap_file_pages pkey_alloc pkey_free pkey_mprotect
map_shadow_stack mseal get_mempolicy membarrier
fork vfork execve execveat exit exit_group wait4 waitid waitpid kill tkill tgkill
rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend
rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaction signal sigpending sigprocmask
sigreturn sigsuspend sigaltstack pause restart_syscall
pidfd_open pidfd_send_signal pidfd_getfd process_mrelease
ptrace process_vm_readv process_vm_writev kcmp
getpid getppid gettid getpgid getpgrp setpgid getsid setsid set_tid_address
getuid getuid32 geteuid geteuid32 getgid getgid32 getegid getegid32 getgroups getgroups32
getresuid getresuid32 getresgid getresgid32 setuid setuid32 setgid setgid32 setreuid setreuid32
setregid setregid32 setresuid setresuid32 setresgid setresgid32 setgroups setgroups32
setfsuid setfsuid32 setfsgid setfsgid32 capget capset prctl arch_prctl modify_ldt
get_thread_area set_thread_area set_robust_list get_robust_list rseq seccomp
landlock_create_ruleset landlock_add_rule landlock_restrict_self
futex futex_time64 futex_waitv futex_wake futex_wait futex_requeue
getrlimit ugetrlimit setrlimit prlimit64 getrusage getpriority setpriority ioprio_get ioprio_set
sched_yield sched_getaffinity sched_setaffinity sched_getattr sched_setattr sched_getparam
sched_setparam sched_getscheduler sched_setscheduler sched_get_priority_max
sched_get_priority_min sched_rr_get_interval sched_rr_get_interval_time64 getcpu
nanosleep clock_nanosleep clock_nanosleep_time64 clock_gettime clock_gettime64 clock_getres
clock_getres_time64 gettimeofday time times alarm getitimer setitimer timer_create timer_delete
timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64
uname sysinfo getrandom
bind listen accept accept4 connect getsockname getpeername getsockopt setsockopt
send sendto sendmsg sendmmsg recv recvfrom recvmsg recvmmsg recvmmsg_time64 shutdown
shmget shmat shmdt shmctl semget semop semtimedop semtimedop_time64 semctl msgget msgsnd msgrcv
msgctl ipc mq_open mq_unlink mq_timedsend mq_timedsend_time64 mq_timedreceive
mq_timedreceive_time64 mq_notify mq_getsetattr
""".split()

_AF_UNIX: Final = 1
_AF_NETLINK: Final = 16
_ADDRESS_FAMILIES: Final = {"AF_UNIX": _AF_UNIX, "AF_INET": 2, "AF_INET6": 10}
_NETLINK_ROUTE: Final = 0
"""For the names of interfaces; other protocols reach more of the kernel than a build needs."""

_PERSONALITIES: Final = (
    0x0,  # Linux
    0x8,  # Linux, 32 bits
    0x20000,  # Linux, UNAME26
    0x20008,
    0x40000,  # no address randomisation, as debuggers ask for
    0x40008,
    0xFFFFFFFF,  # only asks
)

_NEW_NAMESPACES: Final = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET together."""

_ARCHITECTURES: Final = {
    "x86_64": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
    "aarch64": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
}


def profile(machine: str) -> dict[str, Any]:
    """The `linux.seccomp` object of the runtime spec, for a kernel that calls itself `machine`.

    ValueError for a machine that has no profile.
    """
    if machine not in _ARCHITECTURES:
        raise ValueError(f"there is no seccomp profile for {machine}")
    allow = "SCMP_ACT_ALLOW"
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": errno.EPERM,
        "architectures": _ARCHITECTURES[machine],
        "syscalls": [
            {"names": sorted(_ALLOWED), "action": allow},
            *(
                {"names": ["socket"], "action": allow, "args": [_equals(0, family)]}
                for family in _ADDRESS_FAMILIES.values()
            ),
            {
                "names": ["socket"],
                "action": allow,
                "args": [_equals(0, _AF_NETLINK), _equals(2, _NETLINK_ROUTE)],
            },
            {"names": ["socketpair"], "action": allow, "args": [_equals(0, _AF_UNIX)]},
            *(
                {"names": ["personality"], "action": allow, "args": [_equals(0, persona)]}
                for persona in _PERSONALITIES
            ),
            {
                "names": ["clone"],
                "action": allow,
                "args": [
                    {
                        "index": 0,
                        "value": _NEW_NAMESPACES,
                        "valueTwo": 0,
                        "op": "SCMP_CMP_MASKED_EQ",
                    }
                ],
            },
            # Its flags lie in memory, out of the filter's reach; libraries fall back to clone.
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS},
        ],
    }


def _equals(index: int, value: int) -> dict[str, Any]:
    return {"index": index, "value": value, "op": "SCMP_CMP_EQ"}
