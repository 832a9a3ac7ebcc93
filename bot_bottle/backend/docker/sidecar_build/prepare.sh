# Compile once what every start would compile again (the image is read-only when it runs), and make the
# places that volumes take their owner from. Files that are made here get a fixed time: equal inputs give an
# equal layer.
mark=/opt/bot-bottle/build/mark
: >"$mark"
export PYTHONHASHSEED=0
python3 -m compileall -q -o 0 --invalidation-mode unchecked-hash /opt/bot-bottle/lib
PYTHONDONTWRITEBYTECODE='' python3 -c '
import importlib, pkgutil
from bot_bottle import sidecar
for module in pkgutil.iter_modules(sidecar.__path__, "bot_bottle.sidecar."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
'
# What the scanner compiles, for the processor at hand: each bottle would do it again, in memory of its own. On
# another kind of processor, or where it cannot be made, it still does.
python3 -c 'from bot_bottle.pipelock.gate import make_ahead; make_ahead()' ||
    echo "the scanner's gates could not be made ahead; each bottle makes its own" >&2
# ssh runs for an account that has a name only.
grep -q '^[^:]*:[^:]*:65532:' /etc/passwd ||
    echo 'sidecar:x:65532:65532:sidecar:/nonexistent:/usr/sbin/nologin' >>/etc/passwd
mkdir -p /run/bot-bottle /var/lib/bot-bottle
chmod 0700 /run/bot-bottle /var/lib/bot-bottle
chown 65532:65532 /run/bot-bottle /var/lib/bot-bottle
. /opt/bot-bottle/build/settle.sh
