# The finishing layer of every agent image: the account, the home and the mount points that a bottle has.
# Runs as root with no network needed; POSIX sh, grep, mkdir and chown are all it takes.
passwd=/etc/passwd
if ! grep -q '^agent:[^:]*:1000:1000:[^:]*:/home/agent:' "$passwd"; then
    # Before any other entry of the same number, so that this is the name uid 1000 has; the other one stays.
    rest=$(grep -v -e '^root:' -e '^agent:' "$passwd" || :)
    first=$(grep '^root:' "$passwd" || :)
    printf '%s\n%s\n%s\n' "$first" 'agent:x:1000:1000:agent:/home/agent:/bin/sh' "$rest" >"$passwd"
fi
if ! grep -q '^[^:]*:[^:]*:1000:' /etc/group; then
    printf 'agent:x:1000:\n' >>/etc/group
fi
mkdir -p /home/agent/workspace /run/bot-bottle /etc/ssl/certs /tmp /var/tmp
chown -R 1000:1000 /home/agent
chmod 0755 /home /home/agent /home/agent/workspace
