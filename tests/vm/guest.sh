#!/bin/sh
# The first process of the machine that cgroup.sh starts: hands cgroups over in several ways, runs handlers in them, and says what came of it.
# Each line that begins with "not ok" is a broken promise; "figure" lines tell what was counted.
set -u
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup
echo 1 >/proc/sys/kernel/printk
python3 -c 'import fcntl, socket, struct
loopback = struct.pack("16sh14x", b"lo", 1)
fcntl.ioctl(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), 0x8914, loopback)'

readonly cgroups=/sys/fs/cgroup
readonly user=1000
readonly bound_mib=64
# With what Python takes itself a little more than the bound. Taken at once and given back at once, so that watching may miss it; on a
# translated processor it is slow enough to be seen mostly.
readonly gulp_bytes=$((58 << 20))
readonly seconds_max=20
echo +memory >$cgroups/cgroup.subtree_control
# Large pages: so a translated processor, too, takes and gives back in less than the time between two looks.
echo always >/sys/kernel/mm/transparent_hugepage/enabled

check() {
  what=$1
  shift
  if "$@"; then echo "ok: $what"; else echo "not ok: $what ($*)"; fi
}

# until_so COMMAND…: whether it came true in time.
until_so() {
  deadline=$(($(date +%s) + seconds_max))
  until "$@"; do
    [ "$(date +%s)" -lt "$deadline" ] || return 1
  done
}

# A cgroup of this name with memory handed down to it, for a user.
hand_over() {
  mkdir "$cgroups/$1"
  chown $2 "$cgroups/$1" "$cgroups/$1/cgroup.procs" "$cgroups/$1/cgroup.threads" "$cgroups/$1/cgroup.subtree_control"
}

# job NAME LINES: a job's folder with this input.
job() {
  mkdir -p /tmp/$1
  cat >/tmp/$1/job.toml <<JOB
name = "$1"
input = { jsonl = "in.jsonl" }
max_concurrency = 4
tolerated_failure_percentage = 100
results = "out"

[function]
timeout = "60s"

[function.handler]
command = ["python3", "/runtime.py"]
memory = "$bound_mib MiB"
JOB
  printf '%s' "$2" >/tmp/$1/in.jsonl
  chown -R $user /tmp/$1
}

# in_group GROUP USER JOB: runs a job in its place, so that nobody else is in the cgroup.
in_group() {
  sh -c 'echo $$ >"$1/cgroup.procs" && cd "/tmp/$3" &&
    exec setpriv --reuid "$2" --regid "$2" --clear-groups env TROMMEL_LOG=info HOME=/tmp trommel run job.toml' \
    sh "$cgroups/$1" "$2" "$3"
}

failed_as() {
  cat /tmp/$1/out/*/FAILED_*.jsonl 2>/dev/null | grep -c "\"$2\""
}

succeeded() {
  cat /tmp/$1/out/*/SUCCEEDED_*.jsonl 2>/dev/null | wc -l
}

# How often the kernel ended all of a cgroup in this one (oom_kill counts each first victim twice).
kills() {
  awk '$1 == "oom_group_kill" { print $2 }' $cgroups/$1/memory.events
}

# Nothing of ours is in it, and nothing is handed down.
is_clean() {
  [ -z "$(ls $cgroups/$1 | grep trommel)" ] && [ -z "$(cat $cgroups/$1/cgroup.subtree_control)" ]
}

says() {
  grep -q "$2" /tmp/$1/log
}

# Thirty gulps, one that eats for long, one whose child does, and eight that do nothing wrong.
work=$(
  for n in $(seq 1 30); do echo "{\"do\": \"gulp\", \"bytes\": $gulp_bytes}"; done
  for n in $(seq 1 8); do echo "{\"do\": \"echo\"}"; done
  echo '{"do": "eat", "bytes": 300000000}'
  echo '{"do": "child-eats", "bytes": 300000000}'
)

echo "# handed over to a user, who is alone in it"
hand_over ours $user
job ours "$work"
in_group ours $user ours >/tmp/ours/log 2>&1
check "the log says that the kernel bounds" says ours "the kernel bounds"
check "32 fail as OutOfMemory" [ "$(failed_as ours OutOfMemory)" = 32 ]
check "8 succeed" [ "$(succeeded ours)" = 8 ]
check "the cause names the kernel" grep -q "and the kernel ended it" /tmp/ours/out/*/FAILED_0.jsonl
check "the kernel has ended 32 cgroups" [ "$(kills ours)" = 32 ]
check "nothing is left in the cgroup" is_clean ours
echo "figure: handed over: OutOfMemory $(failed_as ours OutOfMemory), succeeded $(succeeded ours), ended by the kernel $(kills ours)"
grep 'kernel bounds' /tmp/ours/log | head -n 1

echo "# handed over, and the handler is a child of its wrapper"
hand_over wrapped $user
job wrapped "$work"
printf '#!/bin/sh\npython3 /runtime.py\n' >/tmp/wrapped/bootstrap
chmod 755 /tmp/wrapped/bootstrap
sed -i 's|^command = .*|command = ["./bootstrap"]|' /tmp/wrapped/job.toml
in_group wrapped $user wrapped >/tmp/wrapped/log 2>&1
check "32 fail as OutOfMemory under a wrapper, too" [ "$(failed_as wrapped OutOfMemory)" = 32 ]
check "the kernel has ended 32 cgroups under a wrapper, too" [ "$(kills wrapped)" = 32 ]
check "nothing is left in the cgroup of wrappers" is_clean wrapped
echo "figure: wrapped: OutOfMemory $(failed_as wrapped OutOfMemory), succeeded $(succeeded wrapped), ended by the kernel $(kills wrapped)"

echo "# in another user's"
mkdir $cgroups/others
job others "$work"
in_group others $user others >/tmp/others/log 2>&1
check "the log says why it watches" says others "belongs to another user"
check "what eats for long is found by watching" [ "$(failed_as others OutOfMemory)" -ge 2 ]
check "the kernel killed nobody" [ "$(kills others)" = 0 ]
check "nothing was made there" is_clean others
most=$(grep -oh 'it held [0-9]* bytes' /tmp/others/out/*/FAILED_0.jsonl | awk '$3 > most { most = $3 } END { print most }')
echo "figure: watched: the most that one held before it was ended: $most bytes of $((bound_mib << 20))"
echo "figure: watched: OutOfMemory $(failed_as others OutOfMemory), succeeded $(succeeded others), ended by the kernel $(kills others)"

echo "# with somebody else in it"
hand_over shared $user
sleep 1000 &
sleeper=$!
echo $sleeper >$cgroups/shared/cgroup.procs
job shared '{"do": "echo"}'
in_group shared $user shared >/tmp/shared/log 2>&1
check "the log says why it watches" says shared "1 other processes are in its cgroup"
check "it succeeds" [ "$(succeeded shared)" = 1 ]
check "nothing is left in the cgroup" is_clean shared
kill $sleeper

echo "# root, in a cgroup like any other, and in the machine's own"
hand_over roots 0
job roots '{"do": "echo"}'
in_group roots 0 roots >/tmp/roots/log 2>&1
check "the log says why it watches" says roots "it is root"
check "nothing was made there" is_clean roots
job whole '{"do": "echo"}'
in_group . 0 whole >/tmp/whole/log 2>&1
check "the log says why it watches" says whole "the whole machine's"

echo "# root, in a namespace of its own, as in a container"
hand_over box 0
job box "$work"
sh -c 'echo $$ >'"$cgroups"'/box/cgroup.procs && cd /tmp/box &&
  exec unshare --cgroup --mount sh -c "umount /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup &&
    exec env TROMMEL_LOG=info HOME=/tmp trommel run job.toml"' >/tmp/box/log 2>&1
check "the log says that the kernel bounds" says box "the kernel bounds"
check "32 fail as OutOfMemory" [ "$(failed_as box OutOfMemory)" = 32 ]
check "8 succeed" [ "$(succeeded box)" = 8 ]
check "nothing is left in the cgroup" is_clean box

echo "# the memory of a group around it is all there is"
hand_over tight $user
echo $((200 << 20)) >$cgroups/tight/memory.max
echo 0 >$cgroups/tight/memory.swap.max
job tight "$(for n in 1 2 3 4; do echo '{"do": "eat", "bytes": 100000000}'; done)"
sed -i "s/$bound_mib MiB/1 GiB/" /tmp/tight/job.toml
in_group tight $user tight >/tmp/tight/log 2>&1
check "nobody is OutOfMemory who held no more than he may" [ "$(failed_as tight OutOfMemory)" = 0 ]
check "the cause is told" grep -q "no memory was left" /tmp/tight/out/*/FAILED_0.jsonl
check "nothing is left in the cgroup" is_clean tight
echo "figure: tight: Crashed $(failed_as tight Crashed), ended by the kernel $(kills tight)"

echo "# memory that is no process's own: files in memory"
hand_over files $user
job files "$(for n in 1 2 3 4; do echo '{"do": "hoard", "bytes": 200000000}'; done)"
in_group files $user files >/tmp/files/log 2>&1
check "it counts, too" [ "$(failed_as files OutOfMemory)" = 4 ]
check "nothing is left in the cgroup" is_clean files
echo "figure: files in memory: OutOfMemory $(failed_as files OutOfMemory), ended by the kernel $(kills files)"

# A worker of a job whose four handlers sleep.
start_sleeping() {
  job $1 "$(for n in 1 2 3 4; do echo '{"do": "sleep", "seconds": 1000}'; done)"
  in_group $1 $user $1 >/tmp/$1/log 2>&1 &
}

four_sleep() {
  [ "$(cat $cgroups/$1/trommel-*.*/cgroup.procs 2>/dev/null | wc -l)" = 4 ]
}

# Its number is in its leaf's name.
worker_of() {
  ls $cgroups/$1 | sed -n 's/^trommel-\([0-9]*\)x[0-9a-f]*$/\1/p'
}

echo "# a worker is killed"
hand_over killed $user
start_sleeping killed
check "four handlers are bounded" until_so four_sleep killed
kill -9 "$(worker_of killed)"
check "its helper leaves nothing in the cgroup" until_so is_clean killed
check "nobody lives in it" until_so grep -q "populated 0" $cgroups/killed/cgroup.events

echo "# a worker, its helper and its handlers are killed at once"
hand_over leftover $user
start_sleeping leftover
check "four handlers are bounded" until_so four_sleep leftover
echo 1 >$cgroups/leftover/cgroup.kill
check "all are dead" until_so grep -q "populated 0" $cgroups/leftover/cgroup.events
left=$(ls -d $cgroups/leftover/trommel-* | wc -l)
check "their cgroups are left" [ "$left" = 5 ]
# Whoever starts the next one makes room for it.
echo -memory >$cgroups/leftover/cgroup.subtree_control
rm -r /tmp/leftover
job leftover '{"do": "echo"}'
in_group leftover $user leftover >/tmp/leftover/log 2>&1
check "the next one succeeds" [ "$(succeeded leftover)" = 1 ]
check "and has removed what was left" is_clean leftover
echo "figure: leftover: $left cgroups before, $(ls -d $cgroups/leftover/trommel-* 2>/dev/null | wc -l) after"

echo "finished"
# A Debian of the smallest kind has no poweroff.
echo o >/proc/sysrq-trigger
sleep $seconds_max
