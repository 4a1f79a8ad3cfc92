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
port view glo; audit view glo
"""
# Ours: a role that sees and changes nothing.
AUDITOR = """
user view org col; organization view org col; collaboration view org; study view org col; role view org col;
node view org col; task view org col; run view org col; port view org; event receive org col; audit view org col
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
    "nobody": "",
}
MACHINES = ("node", "container")
USERS = tuple(name for name in CALLERS if name not in {*MACHINES, "nobody"})

NOBODY = "nobody's"

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
    "task wait": ("task view", "container"),
    "collaboration add node": ("node create", ""),
    # Stores have no rules of their own in section 11: they belong to collaborations, whose rules hold.
    "algorithmstore get": ("collaboration view", "node"),
    "algorithmstore list": ("collaboration view", ""),
    "algorithmstore post": ("collaboration edit", ""),
    "algorithmstore patch": ("collaboration edit", ""),
    "algorithmstore delete": ("collaboration edit", ""),
    # Of section 2.10; whoever may create tasks uploads for them, whoever sees the run fetches.
    "blobstream status": ("", "node container"),
    "blobstream post": ("task create", "node container"),
    "blobstream get": ("run view", "node container"),
    # Only one's own.
    "password change": ("", ""),
    "token validate user": ("", ""),
    "token validate node": (NOBODY, "node"),
    "token container": (NOBODY, "node"),
    "vpn profile": (NOBODY, "node"),
    "vpn addresses": (NOBODY, "container"),
    "port post": (NOBODY, "node"),
    "port delete": (NOBODY, "node"),
    # Ours, among skerry's own parts (native protocol, section 4).
    "keys list": ("organization view", "node container"),
    "keys put": ("organization edit", "node"),
    "keys get": ("organization view", "node"),
    "keys clear": ("organization edit", ""),
    "audit read": ("audit view", ""),
    "keys succeed": ("organization edit", ""),
    "keys revoke": ("organization edit", ""),
    "node invite": ("node create", ""),
    "node invite again": ("node edit", ""),
    "self node": (NOBODY, "node"),
    "self key": (NOBODY, "node"),
    "self config": (NOBODY, "node"),
    "self work": (NOBODY, "node"),
    "self leave": (NOBODY, "node"),
    "run status": (NOBODY, "node"),
    "run log": (NOBODY, "node"),
    "run token": (NOBODY, "node container"),
    "run input": ("run view", "node container"),
    "run result": ("run view", "container"),
    "run stage": (NOBODY, "node container"),
    "run received": (NOBODY, "node container"),
    # An input sent ahead: whoever may create tasks; what came of it only its sender is told.
    "blob put": ("task create", "container"),
    "blob received": ("task create", "container"),
    "run finish": (NOBODY, "node container"),
    "run address": (NOBODY, "node"),
    "run introduce": (NOBODY, "node"),
}


def scopes(caller: str, rule: str) -> set[str]:
    """The scopes in which the caller has the rule."""
    lines = [line.split() for line in CALLERS[caller].replace("\n", " ").split(";") if line.split()]
    return {scope for line in lines if " ".join(line[:2]) == rule for scope in line[2:]}


# Where a deed reaches otherwise than far: relation → scopes.
_EVERYWHERE = dict.fromkeys((*RELATIONS, "self"), "glo")
_NEAR = {"own": "col glo", "same": "col glo", "other": "glo", "none": "glo", "self": "col glo"}
REACH: dict[str, dict[str, str]] = {
    # Section 2.6: the members of a collaboration are a matter of a global rule, whichever call changes them.
    "collaboration widen": _EVERYWHERE,
    "collaboration add organization": _EVERYWHERE,
    "collaboration remove organization": _EVERYWHERE,
    # Section 11: Root neither, outside of its own organization's collaborations.
    "task post": {"own": "col glo", "same": "col glo", "other": "", "none": ""},
    "column post": {"own": "col glo", "same": "col glo", "other": "", "none": ""},
    # Section 2.11: event send, col or glo.
    "task kill": _NEAR,
    # It is of no collaboration yet.
    **dict.fromkeys(("blobstream post", "blob put", "blob received"), dict.fromkeys(RELATIONS, "col glo")),
    # A partner's administrator must not speak for an organization that has no keys yet.
    "keys put": {**_EVERYWHERE, "own": "org col glo"},
    # Nobody clears keys for themselves alone.
    "keys clear": dict.fromkeys(RELATIONS, "glo"),
    # What of the trail one may see is another test's matter.
    "audit read": dict.fromkeys(RELATIONS, "org col glo"),
    # Statements that an organization signs are its own people's to hand in.
    "keys succeed": {**dict.fromkeys(RELATIONS, ""), "own": "org col glo"},
    "keys revoke": {**dict.fromkeys(RELATIONS, ""), "own": "org col glo"},
}
# Each collaboration that one is in is as near as the next.
for _deed in DEEDS:
    if _deed.split()[0] in {"collaboration", "algorithmstore"} and _deed != "collaboration remove node":
        REACH.setdefault(_deed, {"same": "org col glo"})


def reaching(deed: str, relation: str) -> set[str]:
    """The scopes that reach a thing in this relation. Where the thing belongs to a collaboration, that one counts."""
    return set(REACH.get(deed, {}).get(relation, FAR[relation]).split())


def may(caller: str, deed: str, relation: str) -> bool:
    """What the contract has, with our additions."""
    rule, others = DEEDS[deed]
    if caller not in USERS:
        return caller in others.split() and _machine_may(caller, deed, relation)
    if deed == "collaboration add node":
        # It leaves one collaboration and joins another.
        return all(scopes(caller, needed) & reaching(deed, relation) for needed in ("node create", "node delete"))
    return not rule or _own_matter(caller, deed, relation) or bool(scopes(caller, rule) & reaching(deed, relation))


def _own_matter(caller: str, deed: str, relation: str) -> bool:
    """What takes no rule: to see oneself, to know the keys of partners; and ours: to end one's own task."""
    if deed == "keys list":
        return relation in {"own", "same"}
    if relation != "self":
        return False
    return deed in {"user get", "user list"} or (deed == "task kill" and bool(scopes(caller, "task create")))


# Deed → relations in which a node or a container may do it, where the rules of section 11 reach further.
MACHINE_REACH = {
    "task post": "own same",  # children of its task, in its collaboration
    **dict.fromkeys(("blobstream post", "blob put", "blob received"), "own same other none"),
    "keys list": "own",
    "keys put": "own",
    # The one collaboration that it is in is "own".
    "collaboration get": "own",
    "collaboration list": "own",
    "algorithmstore get": "own",
}


def _machine_may(caller: str, deed: str, relation: str) -> bool:
    """Nodes and containers are narrower than the contract asks: to their own node, runs, job and collaboration.

    A container's token is worth what its job needs: in section 11 it could read every task and (unencrypted) result of
    the collaboration, and the organization's nodes and collaborations elsewhere. A node's is worth what its runs need:
    there it could read the runs of all members and rename the organization's other nodes.
    """
    subject, rule = deed.split(maxsplit=1)[0], DEEDS[deed][0]
    narrow = {"run", "result", "blobstream", "port"} | ({"task"} if caller == "container" else set())
    if deed in MACHINE_REACH:
        return relation in MACHINE_REACH[deed].split()
    if subject in narrow and deed != "blobstream status":
        return relation == "own"  # for a container that stands for its own job
    return rule in {NOBODY, ""} or bool(scopes(caller, rule) & reaching(deed, relation))
