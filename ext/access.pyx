# The permanent access list: the first decision in its order wins (reference 1.2, postscreen_access_list).

cdef enum Access:
    ACCESS_NEXT                 # this step does not know the client
    ACCESS_PERMIT
    ACCESS_REJECT
    ACCESS_DUNNO                # stop: no decision
    ACCESS_ASK                  # what the table found depends on the address: ask Python


cdef int access_decision(Screener core, Policy policy, const Address* address) noexcept:
    cdef int decision
    cdef AccessStep step
    for step in policy.access:
        decision = access_step(core, step, address)
        if decision != ACCESS_NEXT:
            return decision
    return ACCESS_DUNNO


cdef int access_step(Screener core, AccessStep step, const Address* address) noexcept:
    cdef char text[64]
    cdef int32_t found = 0
    if step.networks is not None:
        found = step.networks.find(address)
        if found < 0:
            return ACCESS_NEXT
    if step.numbers[found] != ACCESS_ASK:
        return step.numbers[found]
    try:
        return decision_number(step.decisions[found](text[:address_text(address, text)].decode()))
    except Exception as error:
        core.problem("access list", error)
        return ACCESS_DUNNO


cdef int decision_number(decision) except -1:
    if callable(decision):
        return ACCESS_ASK
    return {"next": ACCESS_NEXT, "permit": ACCESS_PERMIT, "reject": ACCESS_REJECT, "dunno": ACCESS_DUNNO}[decision]


@cython.final
cdef class AccessStep:
    """One step of the access list (see core.pyi)."""

    cdef NetworkTable networks
    cdef tuple decisions
    cdef bytes kept
    cdef const uint8_t* numbers

    def __init__(self, decisions, NetworkTable networks=None):
        self.networks = networks
        self.decisions = tuple(decisions)
        self.kept = bytes([decision_number(decision) for decision in self.decisions])
        if len(self.kept) != (1 if networks is None else len(networks.results)):
            raise ValueError("a step has one decision, or one for each of its table's results")
        self.numbers = <const uint8_t*> <const char*> self.kept
