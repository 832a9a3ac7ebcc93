# The account that an agent has in an image, before any other entry of the same number, so that this is the name
# uid 1000 has; the others stay. POSIX sh alone: each program that is started costs time in every microVM.
end='
'
[ -e /etc/passwd ] || : >/etc/passwd
[ -e /etc/group ] || : >/etc/group
have=
while IFS=: read -r name _ uid gid _ home _ || [ "$name" ]; do
    if [ "$name:$uid:$gid:$home" = agent:1000:1000:/home/agent ]; then have=1; fi
done </etc/passwd
if [ ! "$have" ]; then
    first='' rest=''
    while IFS= read -r line || [ "$line" ]; do
        case $line in
            root:*) first=$first$line$end ;;
            agent:*) ;;
            *) rest=$rest$line$end ;;
        esac
    done </etc/passwd
    printf '%s%s\n%s' "$first" agent:x:1000:1000:agent:/home/agent:/bin/sh "$rest" >/etc/passwd
fi
have='' whole=''
while IFS= read -r line || [ "$line" ]; do
    whole=$whole$line$end
    id=${line#*:*:}
    if [ "${id%%:*}" = 1000 ]; then have=1; fi
done </etc/group
if [ ! "$have" ]; then printf '%sagent:x:1000:\n' "$whole" >/etc/group; fi
