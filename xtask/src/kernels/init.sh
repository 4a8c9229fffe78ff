#!/bin/busybox sh
# The first process of a guest of `cargo xtask kernels`: mounts what hud needs, runs the checks, and powers off.
#
# Kernel parameters that the kernel does not know reach this script as variables:
#   HUD_CHECKS      load, record, or both with a comma between them; or lockdown
#   HUD_RECORDINGS  the recordings: auto, exact, off, no-btf, capabilities
#   HUD_REPEAT      how often the recording `exact` is made
#   HUD_SECONDS     the duration of a recording
#   HUD_LIMIT       the longest time that a command may take, in seconds
#
# Any other parameter of that form is a variable of hud-record too, such as RUST_LOG=debug.
#
# Each line of the console that starts with HUD- is read by xtask/src/kernels/console.rs.

/bin/busybox mkdir -p /bin /sbin /usr/bin /usr/sbin
/bin/busybox --install -s /bin
export PATH=/hud:/usr/bin:/bin:/sbin:/usr/sbin HOME=/root TERM=dumb
# The recording `capabilities` is checked for a note, which is of level info.
log_of_capabilities="${RUST_LOG:-info}"
# A recording may continue with less than requested, and warns of it.
export RUST_LOG="${RUST_LOG:-warn}"

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tracefs tracefs /sys/kernel/tracing
mount -t securityfs securityfs /sys/kernel/security
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /dev/shm
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp
chmod 1777 /tmp
ip link set lo up
# Of the kernel's messages only emergencies, which a panic is: others would cut into the lines below.
dmesg -n 1

uptime_in_seconds() { cut -d. -f1 /proc/uptime; }

# run STEP PART COMMAND...: runs a command; prints its output, its errors, its exit code and how long it took.
run() {
    step=$1 part=$2
    shift 2
    started=$(uptime_in_seconds)
    timeout -s KILL "$HUD_LIMIT" "$@" >/tmp/out 2>/tmp/err
    code=$?
    awk -v prefix="HUD-OUT $step $part " '{ print prefix $0 }' /tmp/out
    tail -n 40 /tmp/err | awk -v prefix="HUD-ERR $step $part " '{ print prefix substr($0, 1, 400) }'
    echo "HUD-EXIT $step $part $code $(($(uptime_in_seconds) - started))"
}

# load STEP OPTION...
load() {
    step=$1
    shift
    echo "HUD-BEGIN $step"
    run "$step" check hud-record check "$@"
    echo "HUD-END $step"
}

start_target() {
    test-async-app >/tmp/target 2>&1 &
    target=$!
    # It prints a line once its tasks run.
    until [ -s /tmp/target ] || ! kill -0 "$target"; do usleep 100000; done
}

rows="SELECT (SELECT count(*) FROM samples) AS samples, (SELECT count(*) FROM off_cpu) AS off_cpu,
             (SELECT count(*) FROM polls) AS polls,
             (SELECT count(*) FROM coverage
              WHERE stream = 'samples' AND dur = 0 AND reason LIKE '%perf_event_paranoid%') AS samples_denied"

# Runs a command as uid 1000, with the capabilities that hud-record asks for and no others.
# By its path: busybox's own setpriv, which busybox's timeout would take, has fewer options.
capabilities=-all,+bpf,+perfmon,+sys_ptrace,+dac_read_search,+checkpoint_restore
as_user="/usr/bin/setpriv --reuid 1000 --regid 1000 --clear-groups --inh-caps=$capabilities --ambient-caps=$capabilities
         --bounding-set=$capabilities env HOME=/tmp RUST_LOG=$log_of_capabilities"

# record STEP OPTION...: hud-record is run by the command in $launcher, or by this shell where that is empty.
record() {
    step=$1
    shift
    echo "HUD-BEGIN $step"
    run "$step" paranoid cat /proc/sys/kernel/perf_event_paranoid
    run "$step" record $launcher hud-record --pid "$target" --headless --export /tmp/session --duration "$HUD_SECONDS" "$@"
    if [ -d /tmp/session ]; then
        run "$step" verify hud-analyze verify /tmp/session
        run "$step" info hud-analyze info /tmp/session --format json
        run "$step" rows hud-analyze sql /tmp/session -c "$rows" --format csv
        rm -rf /tmp/session
    fi
    echo "HUD-END $step"
}

[ -e /sys/kernel/btf/vmlinux ] && btf=yes || btf=no
echo "HUD-BOOT $(uname -r) btf=$btf uptime=$(uptime_in_seconds)"
for check in $(echo "$HUD_CHECKS" | tr , ' '); do
    case $check in
        load)
            load load
            load load-no-btf --no-btf
            ;;
        record)
            start_target
            for recording in $(echo "$HUD_RECORDINGS" | tr , ' '); do
                case $recording in
                    auto | off) record "$recording" --polls "$recording" ;;
                    no-btf) record "$recording" --no-btf ;;
                    capabilities)
                        launcher=$as_user
                        record "$recording" --polls auto
                        launcher=
                        ;;
                    exact)
                        for n in $(seq "$HUD_REPEAT"); do record "exact-$n" --polls exact; done
                        ;;
                esac
            done
            kill "$target"
            ;;
        lockdown)
            start_target
            echo "HUD-BEGIN lockdown"
            run lockdown record hud-record --pid "$target" --headless --export /tmp/session --duration "$HUD_SECONDS"
            echo "HUD-END lockdown"
            kill "$target"
            ;;
    esac
done
dmesg | grep -E 'WARNING:|BUG:|suspicious|lockup|stall' | tail -n 20 | awk '{ print "HUD-KERNEL " substr($0, 1, 300) }'
echo "HUD-DONE"
poweroff -f
