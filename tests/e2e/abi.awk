# From include/pare.h to a C program that prints what other programs are compiled against: the layout of its structs,
# the values of its constants, and its functions as they are declared. Reads the header's own style and no more.
{
    text = text $0 "\n"
}

function strip_comments(s,    out, at) {
    while ((at = index(s, "/*")) > 0) {
        out = out substr(s, 1, at - 1) " "
        s = substr(s, at + 2)
        s = substr(s, index(s, "*/") + 2)
    }
    return out s
}

function tidy(s) {
    gsub(/[ \t\n]+/, " ", s)
    gsub(/^ | $/, "", s)
    return s
}

function say(s) {
    gsub(/["\\]/, "\\\\&", s)
    print "    puts(\"" s "\");"
}

function print_struct(s,    name, body, members, n, i, member) {
    name = s
    sub(/^typedef struct /, "", name)
    sub(/ .*/, "", name)
    body = s
    sub(/^[^{]*\{/, "", body)
    sub(/\}[^}]*$/, "", body)
    print "    printf(\"struct " name " %zu\\n\", sizeof(" name "));"
    n = split(body, members, ";")
    for (i = 1; i < n; i++) {
        member = members[i] = tidy(members[i])
        sub(/^.*[ *]/, "", member)
        print "    printf(\"    %zu %s\\n\", offsetof(" name ", " member "), \"" members[i] "\");"
    }
}

function print_enum(s,    names, n, i) {
    sub(/^[^{]*\{/, "", s)
    sub(/\}.*$/, "", s)
    n = split(s, names, ",")
    for (i = 1; i <= n; i++) {
        sub(/=.*/, "", names[i])
        names[i] = tidy(names[i])
        print "    printf(\"constant %s %d\\n\", \"" names[i] "\", (int)" names[i] ");"
    }
}

function print_statement(s) {
    s = tidy(s)
    if (s ~ /^typedef struct [a-z_]+ \{/)
        print_struct(s)
    else if (s ~ /^enum \{/)
        print_enum(s)
    else if (s ~ /^typedef /)
        say("type " substr(s, 9))
    else if (s != "")
        say("function " s)
}

END {
    text = strip_comments(text)
    n = split(text, lines, "\n")
    text = ""
    for (i = 1; i <= n; i++)
        if (lines[i] !~ /^#/ && lines[i] !~ /^extern "C" \{$/ && lines[i] !~ /^\}$/)
            text = text lines[i] "\n"
    print "#include <pare.h>\n#include <stdio.h>\nint main(void) {"
    depth = 0
    for (i = 1; i <= length(text); i++) {
        c = substr(text, i, 1)
        depth += (c == "{") - (c == "}")
        if (c == ";" && depth == 0) {
            print_statement(statement)
            statement = ""
        } else
            statement = statement c
    }
    print "    return 0;\n}"
}
