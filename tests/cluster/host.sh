# The first process of a host of the bed: host.sh BED NAME [FOLDER_OF_PYTHON_PACKAGES]
set -e
bed=$1 name=$2 packages=$3
checkout=$(cd "$(dirname "$0")/../.." && pwd)
disk=$bed/hosts/$name
exec 2>"$disk/start.log"
hostname "$name"
mount --make-rprivate /
mount --bind "$disk/home" "$bed/home"
case $checkout in
/tmp/*)
    mkdir -p "$disk$checkout"
    mount --bind "$checkout" "$disk$checkout"
    ;;
esac
mount --rbind "$disk/tmp" /tmp
mount -t tmpfs -o size=8g,mode=1777 shm /dev/shm
mount --bind "$disk/etc/hosts" /etc/hosts
mount --bind "$disk/etc/passwd" /etc/passwd
mount --bind "$disk/etc/resolv.conf" /etc/resolv.conf
if [ -n "$packages" ]; then
    mount --bind "$bed/packages" "$packages"
fi
mount --bind "$disk/run" /run
mkdir /run/sshd
# sshd reads its files before the other hosts' disks are hidden
cp "$disk/sshd_config" "$disk/host_key" /run/sshd/
sed -i "s|^HostKey .*|HostKey /run/sshd/host_key|" /run/sshd/sshd_config
exec 2>/run/sshd.log
mount -t tmpfs -o mode=755 hidden "$bed/hosts"
# a file that a host writes must not appear at another
mount -o remount,bind,ro /
exec /usr/sbin/sshd -D -e -f /run/sshd/sshd_config
