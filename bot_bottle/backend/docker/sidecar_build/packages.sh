# Add git, ssh and the system's roots where the base image has none; nothing else, and no trace of apt.
missing=""
command -v git >/dev/null 2>&1 || missing="$missing git"
command -v ssh >/dev/null 2>&1 || missing="$missing openssh-client"
[ -s /etc/ssl/certs/ca-certificates.crt ] || missing="$missing ca-certificates"
[ -n "$missing" ] || exit 0
if ! command -v apt-get >/dev/null 2>&1; then
    echo "the base image lacks$missing and has no apt-get to add it; name another one" >&2
    exit 1
fi
mark=/opt/bot-bottle/build/mark
: >"$mark"
ca=/opt/bot-bottle/build/ca.pem
options="-q -o Acquire::Retries=2"
[ ! -s "$ca" ] || options="$options -o Acquire::https::CaInfo=$ca"
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086 - words on purpose
apt-get $options update
# shellcheck disable=SC2086
apt-get $options install -y --no-install-recommends $missing
rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/ldconfig/aux-cache /var/log/apt /var/log/dpkg.log \
    /var/log/alternatives.log
. /opt/bot-bottle/build/settle.sh
