# The permanent access list: the first decision in its order wins (reference 1.2, postscreen_access_list).

cdef enum Access:
    ACCESS_NEXT                 # this step does not know the client
    ACCESS_PERMIT
    ACCESS_REJECT
    ACCESS_DUNNO                # stop: no decision


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
    cdef int32_t found
    if step.networks is not None:
        found = step.networks.find(address)
        return ACCESS_NEXT if found < 0 else step.decisions[found]
    try:
        return step.number(step.ask(text[:address_text(address, text)].decode()))
    except Exception as error:
        core.problem("access list", error)
        return ACCESS_DUNNO


@cython.final
cdef class AccessStep:
    """One step of the access list (see core.pyi)."""

    cdef NetworkTable networks
    cdef bytes kept
    cdef const uint8_t* decisions
    cdef object ask

    def __init__(self, NetworkTable networks=None, decisions=(), ask=None):
        self.networks = networks
        self.kept = bytes([self.number(decision) for decision in decisions])
        if networks is not None and len(self.kept) != len(networks.results):
            raise ValueError("a decision is needed for each of the table's results")
        self.decisions = <const uint8_t*> <const char*> self.kept
        self.ask = ask

    cdef int number(self, decision) except -1:
        return {"next": ACCESS_NEXT, "permit": ACCESS_PERMIT, "reject": ACCESS_REJECT, "dunno": ACCESS_DUNNO}[decision]
