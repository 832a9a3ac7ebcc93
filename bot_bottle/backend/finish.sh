# The finishing layer of every agent image, behind account.sh: the home and the mount points that a bottle has.
# Runs as root with no network needed; POSIX sh, mkdir, chown and chmod are all it takes.
mkdir -p /home/agent/workspace /run/bot-bottle /etc/ssl/certs /tmp /var/tmp
chown -R 1000:1000 /home/agent
chmod 0755 /home /home/agent /home/agent/workspace
