# Reads `objdump -d -C --no-show-raw-insn` of one firmware: which functions of the library can panic, and how often.
# Fails if an innermost loop that multiplies floats can: for each branch out of such a loop, what runs next is followed.
# Works in POSIX awk, which knows no hexadecimal: addresses are keys.

function panics(callee) { return callee ~ /panick|_fail|unwrap_failed|expect_failed|something_went_wrong/ }

# The panic that code from line `i` on runs into before it branches, returns or is too long for a cold block.
function leads_to_panic(i, steps) {
    for (steps = 0; steps < 16 && i <= n; steps++) {
        if (callee[i] != "" && panics(callee[i])) return callee[i]
        if (op[i] ~ /^(bx|pop|ldmia|udf)/ && args[i] ~ /pc|lr/) return ""
        if (op[i] ~ /^b(\.[nw])?$/) {
            if (!(target[i] in at)) return ""
            i = at[target[i]]
        } else if (op[i] ~ /^(b[a-z][a-z]|cbn?z)(\.[nw])?$/ && callee[i] == "") return ""
        else i++
    }
    return ""
}

function finish(i, j, start, inner, multiplies, found) {
    if (name == "" || panics(name) || name ~ /^core::|^compiler_builtins/) return
    for (i = 1; i <= n; i++)
        if (callee[i] != "" && panics(callee[i])) {
            sites[name, callee[i]]++
            total++
        }
    for (i = 1; i <= n; i++) {
        if (!(target[i] in at) || op[i] ~ /^bl/) continue
        start = at[target[i]]
        if (start > i) continue
        inner = 1
        multiplies = 0
        for (j = start; j <= i; j++) {
            if (op[j] ~ /^v(mla|mls|mul|fma|fms|nmul)/ || callee[j] ~ /fmul|mulsf/) multiplies++
            if (j < i && target[j] in at && op[j] !~ /^bl/ && at[target[j]] <= j && at[target[j]] >= start) inner = 0
        }
        if (!inner || !multiplies) continue
        if (name !~ /convrelu::|library::/) continue
        loops++
        for (j = start; j <= i; j++) {
            found = ""
            if (callee[j] != "" && panics(callee[j])) found = callee[j]
            else if (target[j] in at && op[j] !~ /^bl/ && (at[target[j]] < start || at[target[j]] > i))
                found = leads_to_panic(at[target[j]])
            if (found != "") {
                printf "a hot loop of %s at %s can panic: %s\n", name, address[j], found > "/dev/stderr"
                bad = 1
            }
        }
    }
}

/^[0-9a-f]+ <.*>:$/ {
    finish()
    name = $0
    sub(/^[0-9a-f]+ </, "", name)
    sub(/>:$/, "", name)
    n = 0
    split("", at)
    next
}

/^ +[0-9a-f]+:\t/ {
    n++
    split($0, field, "\t")
    address[n] = field[1]
    gsub(/[ :]/, "", address[n])
    at[address[n]] = n
    op[n] = field[2]
    args[n] = field[3]
    target[n] = callee[n] = ""
    if (op[n] ~ /^(b|bl|b[a-z][a-z]|cbn?z)(\.[nw])?$/ && match(args[n], /[0-9a-f]+ <.*>/)) {
        target[n] = substr(args[n], RSTART, RLENGTH)
        symbol = target[n]
        sub(/ .*/, "", target[n])
        sub(/^[0-9a-f]+ </, "", symbol)
        sub(/>[^>]*$/, "", symbol)
        # A branch within the function, or to the start of another.
        if (symbol !~ /\+0x[0-9a-f]+$/) callee[n] = symbol
    }
}

END {
    finish()
    for (key in sites) {
        split(key, part, SUBSEP)
        printf "%4d  %s → %s\n", sites[key], part[1], part[2]
    }
    printf "%4d  panic sites in all; %d loops that multiply hold none\n", total, loops
    # Without any, it would not have looked.
    exit bad || !loops
}
