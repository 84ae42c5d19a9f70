#!/bin/sh
# The first process of a user-mode Linux kernel whose root is this machine's own, read-only. Starts an NFS server
# on loopback, runs $SCENARIO (a Python file), whose only way out is the folder $OUT, and powers off.
exec >/dev/console 2>&1
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
mkdir -p /dev/shm
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /var/lib/nfs
mkdir -p /run/out /run/tmp /run/export /run/squashed /run/nfs /run/nfs-local /run/nfs-unlent /run/nfs-squashed /run/modules/lib \
    /var/lib/nfs/v4recovery /var/lib/nfs/rpc_pipefs
mount -t hostfs -o "$OUT" none /run/out
touch /var/lib/nfs/etab /var/lib/nfs/rmtab /var/lib/nfs/state
ip link set lo up
ln -s /usr/lib/uml/modules /run/modules/lib/modules
for module in veth nfsd nfsv3 nfsv4; do modprobe -d /run/modules $module; done

mount -t tmpfs tmpfs /run/export
mkdir /run/export/squashed
mount -t tmpfs -o mode=755 tmpfs /run/export/squashed
mount -t nfsd nfsd /proc/fs/nfsd
# Seconds after which a server gives up a client that it doesn't hear of: the least there is.
echo 10 > /proc/fs/nfsd/nfsv4leasetime
exportfs -i -o rw,no_root_squash,fsid=0,no_subtree_check 10.7.0.0/16:/run/export
exportfs -i -o rw,root_squash,fsid=1,no_subtree_check 10.7.0.0/16:/run/export/squashed
rpcbind
rpc.mountd -N 2
rpc.nfsd -G 10 -V 3 -V 4.2 4

export HOME=/run TMPDIR=/run/tmp
"$PYTHON" "$SCENARIO" > /run/out/said 2>&1
echo $? > /run/out/code
sync
echo o > /proc/sysrq-trigger
sleep 5
poweroff -f
