"""Who may do what, written by hand from the contract (section 11). It knows nothing of the server's own table.

A cell is a deed, a caller and a relation: how the thing that the deed is done to stands to the caller's organization.

self    made by the caller, or the caller
own     of the caller's organization, in a collaboration of that organization
same    of another organization of the same collaboration
other   in a collaboration that the caller's organization is not in
none    of an organization that works with nobody
"""

RELATIONS = ("own", "same", "other", "none")
FAR = {"own": "org col glo", "same": "col glo", "other": "glo", "none": "glo", "self": "own org col glo"}

VIEWER = """
user edit own; user delete own; user view org; organization view org col; collaboration view org; role view org;
node view org col; task view col; run view col; port view org; event receive org col; study view org
"""
RESEARCHER = VIEWER + "; task create col; task delete org"
ORGANIZATION_ADMIN = (
    VIEWER
    + """
; user create org; user edit org; user delete org; organization edit org; role create org; role edit org;
role delete org; node create org; node edit org; event send org
"""
)
COLLABORATION_ADMIN = (
    ORGANIZATION_ADMIN
    + "; "
    + RESEARCHER
    + """
; user view col; user create col; user edit col; organization view glo; organization edit col; collaboration edit col;
role view col; node view col; node create col; node delete col; event send col; study view col; study create col;
study edit col; study delete col
"""
)
ROOT = """
user view glo; user edit glo; user create glo; user delete glo; organization view glo; organization edit glo;
organization create glo; organization delete glo; collaboration view glo; collaboration edit glo;
collaboration create glo; collaboration delete glo; study view glo; study edit glo; study create glo; study delete glo;
role view glo; role edit glo; role create glo; role delete glo; node view glo; node edit glo; node create glo;
node delete glo; task view glo; task create glo; task delete glo; run view glo; event send glo; event receive glo;
port view glo
"""
# Ours: a role that sees and changes nothing.
AUDITOR = """
user view org col; organization view org col; collaboration view org; study view org col; role view org col;
node view org col; task view org col; run view org col; port view org; event receive org col
"""
CONTAINER = """
task view col; run view col; node view org; organization view org col; collaboration view org; study view org;
port view org
"""
NODE = CONTAINER + "; node edit org; organization edit org"

CALLERS = {
    "Root": ROOT,
    "Collaboration Admin": COLLABORATION_ADMIN,
    "Organization Admin": ORGANIZATION_ADMIN,
    "Researcher": RESEARCHER,
    "Viewer": VIEWER,
    "Auditor": AUDITOR,
    "no role": "",
    "node": NODE,
    "container": CONTAINER,
}
USERS = tuple(name for name in CALLERS if name not in {"node", "container"})

# deed: (rule that it needs, who but users may try)
DEEDS = {
    "organization get": ("organization view", "node container"),
    "organization list": ("organization view", "node container"),
    "organization patch": ("organization edit", "node"),
    "organization delete": ("organization delete", ""),
    "organization post": ("organization create", ""),
    "collaboration get": ("collaboration view", "node container"),
    "collaboration list": ("collaboration view", "node"),
    "collaboration patch": ("collaboration edit", ""),
    "collaboration delete": ("collaboration delete", ""),
    "collaboration post": ("collaboration create", ""),
    "collaboration widen": ("collaboration edit", ""),
    "collaboration add organization": ("collaboration edit", ""),
    "collaboration remove organization": ("collaboration edit", ""),
    "collaboration remove node": ("node delete", ""),
    "study get": ("study view", "node container"),
    "study list": ("study view", "node container"),
    "study patch": ("study edit", ""),
    "study delete": ("study delete", ""),
    "study post": ("study create", ""),
    "study add organization": ("study edit", ""),
    "study remove organization": ("study edit", ""),
    "node get": ("node view", "node container"),
    "node list": ("node view", "node"),
    "node patch": ("node edit", "node"),
    "node delete": ("node delete", ""),
    "node post": ("node create", ""),
    "node renew key": ("node edit", ""),
    "node kill tasks": ("event send", ""),
    "user get": ("user view", ""),
    "user list": ("user view", ""),
    "user patch": ("user edit", ""),
    "user delete": ("user delete", ""),
    "user post": ("user create", ""),
    "role get": ("role view", ""),
    "role list": ("role view", ""),
    "role patch": ("role edit", ""),
    "role delete": ("role delete", ""),
    "role post": ("role create", ""),
    "role add rule": ("role edit", ""),
    "role remove rule": ("role edit", ""),
    "rule get": ("", ""),
    "rule list": ("", ""),
    "task get": ("task view", "node container"),
    "task status": ("task view", "node container"),
    "task list": ("task view", "node container"),
    "task post": ("task create", "container"),
    "task delete": ("task delete", ""),
    "task kill": ("event send", ""),
    "column post": ("task create", ""),
    "run get": ("run view", "node container"),
    "run list": ("run view", "node container"),
    "result get": ("run view", "node container"),
    "result list": ("run view", "node container"),
}


def scopes(caller: str, rule: str) -> set[str]:
    """The scopes in which the caller has the rule."""
    lines = [line.split() for line in CALLERS[caller].replace("\n", " ").split(";") if line.split()]
    return {scope for line in lines if " ".join(line[:2]) == rule for scope in line[2:]}


def reaching(deed: str, relation: str) -> set[str]:
    """The scopes that reach a thing in this relation. Where the thing belongs to a collaboration, that one counts."""
    subject = deed.split(maxsplit=1)[0]
    if deed in {"collaboration widen", "collaboration add organization", "collaboration remove organization"}:
        return {"glo"}  # no administrator widens their own collaboration (CVE-2024-32969)
    if subject == "collaboration" and deed != "collaboration remove node" and relation == "same":
        return {"org", "col", "glo"}  # each collaboration that one is in is as near as the next
    if deed in {"task post", "column post"}:
        return {"col", "glo"} if relation in {"own", "same"} else set()  # Root neither, outside its collaborations
    if deed == "task kill":
        return set(FAR[relation].split()) - {"org", "own"}
    return set(FAR[relation].split())


def may(caller: str, deed: str, relation: str) -> bool:
    """What the contract has, with our additions."""
    rule, others = DEEDS[deed]
    if caller not in USERS:
        return caller in others.split() and _machine_may(caller, deed, relation)
    if not rule:
        return True
    if relation == "self" and deed in {"user get", "user list"}:
        return True
    if relation == "self" and deed == "task kill" and scopes(caller, "task create"):
        return True  # ours: who made a task may end it
    return bool(scopes(caller, rule) & reaching(deed, relation))


def _machine_may(caller: str, deed: str, relation: str) -> bool:
    """Nodes and containers are narrower than the contract asks: to their own node, runs and job."""
    subject = deed.split(maxsplit=1)[0]
    if deed == "task post":
        return relation in {"own", "same"}  # children of its task, in its collaboration
    if caller == "container" and subject in {"task", "run", "result"}:
        return relation == "own"  # its own job, which is what stands for "own" here
    if caller == "node" and subject in {"run", "result"}:
        return relation == "own"
    if deed in {"collaboration get", "collaboration list"} and relation == "same":
        return False  # the one collaboration that it is in is "own"
    rule, _ = DEEDS[deed]
    return bool(scopes(caller, rule) & reaching(deed, relation))
