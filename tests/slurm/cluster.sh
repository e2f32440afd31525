#!/bin/bash
# A SLURM of one controller and one node on this machine, for the tests: no systemd, no cgroups, no accounting.
#
#   tests/slurm/cluster.sh install         Debian's packages, as root (apt-get)
#   tests/slurm/cluster.sh start FOLDER    write the configuration into FOLDER and start munge, controller and node
#   tests/slurm/cluster.sh stop FOLDER     stop what `start` started from that FOLDER
#
# After `start`, `export SLURM_CONF=FOLDER/slurm.conf` lets sbatch, squeue and the others find it. All daemons
# run as the user who starts them; everything that they write is in FOLDER. A job that is requeued waits for
# cred_expire seconds (and one) before it starts again: 5 here, 120 where nothing else is said.
set -eu

install_packages() {
    apt-get update
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
        slurmctld slurmd slurm-client munge
}

write_configuration() {
    local folder=$1 host user
    host=$(hostname -s)
    user=$(id -un)
    cat > "$folder/slurm.conf" <<EOF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=${SLURMCTLD_PORT:-16817}
SlurmdPort=${SLURMD_PORT:-16818}
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket,cred_expire=5
CryptoType=crypto/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
KillWait=${KILL_WAIT:-60}
OverTimeLimit=0
SchedulerParameters=sched_interval=5,bf_interval=5
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(getconf _NPROCESSORS_ONLN) State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP
EOF
}

start() {
    local folder
    mkdir -p "$1"
    folder=$(realpath "$1")
    mkdir -p "$folder/state" "$folder/spool" "$folder/munge"
    chmod 700 "$folder/munge"
    dd if=/dev/urandom of="$folder/munge/key" bs=128 count=1 status=none
    chmod 600 "$folder/munge/key"
    write_configuration "$folder"
    export SLURM_CONF="$folder/slurm.conf"
    munged --force --key-file="$folder/munge/key" --socket="$folder/munge/socket" \
        --pid-file="$folder/munge/pid" --log-file="$folder/munge/log" --seed-file="$folder/munge/seed"
    slurmctld -c
    slurmd -c
    for _ in $(seq 60); do
        if [ "$(sinfo --noheader --format=%T 2> /dev/null)" = idle ]; then
            sinfo --version
            exit 0
        fi
        sleep 1
    done
    echo "the node is not idle after a minute: see $folder/slurmctld.log and $folder/slurmd.log" >&2
    exit 1
}

stop() {
    local file
    for file in "$1/slurmd.pid" "$1/slurmctld.pid" "$1/munge/pid"; do
        if [ -f "$file" ]; then
            kill "$(cat "$file")" || true
        fi
    done
}

case "${1:-}" in
    install) install_packages ;;
    start) start "$2" ;;
    stop) stop "$2" ;;
    *)
        sed -n '2,11s/^# \{0,1\}//p' "$0"
        exit 2
        ;;
esac
