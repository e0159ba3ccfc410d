# innermost loops with fmla: per loop: instrs, fmla, by-lane, loads, stack accesses
import sys,re
fn=None; lines=[]
def emit(fn,body):
    labels={}
    for i,l in enumerate(body):
        m=re.match(r'^(\.L\w+):',l)
        if m: labels[m.group(1)]=i
    loops=[]
    for i,l in enumerate(body):
        m=re.match(r'^\s+(b\.\w+|cbn?z|tbn?z|b)\s.*?(\.L\w+)\s*$',l)
        if m and m.group(2) in labels and labels[m.group(2)]<i:
            loops.append((labels[m.group(2)],i))
    inner=[(a,b) for a,b in loops if not any((c,d)!=(a,b) and a<=c and d<=b for c,d in loops)]
    for a,b in inner:
        ins=[x for x in body[a:b+1] if re.match(r'^\s+[a-z]',x)]
        f=sum('fmla' in x for x in ins)
        if f<4: continue
        lane=sum(bool(re.search(r'fmla.*\.s\[',x)) for x in ins)
        sp=sum('[sp' in x for x in ins)
        ld=sum(bool(re.match(r'\s+(ld|ldp|ldr|ld1)',x)) for x in ins)
        print(f"{len(ins)/f:5.2f} ins={len(ins):4d} fmla={f:3d} lane={lane:3d} loads={ld:3d} stack={sp:2d}  {fn[:110]}")
for l in open(sys.argv[1]):
    m=re.match(r'^(_\w+|[a-zA-Z][\w.$]*):',l)
    if m:
        if fn: emit(fn,lines)
        fn=m.group(1); lines=[]
    lines.append(l.rstrip())
emit(fn,lines)
