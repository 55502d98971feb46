# The search for weights of `fastscreen tune --suggest`, on what the judge has collected about scores.

@cython.final
cdef class WeightSearch:
    """See core.pyi."""

    cdef int count, patterns, groups
    cdef int32_t* starts            # of each pattern's features
    cdef int32_t* features
    cdef int32_t* group_starts
    cdef int32_t* members
    cdef int64_t* good
    cdef int64_t* bad
    cdef int64_t* scores

    def __init__(self, int count, patterns, groups):
        cdef int at, place
        self.count = count
        self.patterns = len(patterns)
        self.groups = len(groups)
        self.starts = <int32_t*> calloc(self.patterns + 1, sizeof(int32_t))
        self.features = <int32_t*> calloc(sum([len(each) for each in patterns]) + 1, sizeof(int32_t))
        self.group_starts = <int32_t*> calloc(self.groups + 1, sizeof(int32_t))
        self.members = <int32_t*> calloc(sum([len(each[0]) for each in groups]) + 1, sizeof(int32_t))
        self.good = <int64_t*> calloc(self.groups + 1, sizeof(int64_t))
        self.bad = <int64_t*> calloc(self.groups + 1, sizeof(int64_t))
        self.scores = <int64_t*> calloc(self.patterns + 1, sizeof(int64_t))
        if (self.starts == NULL or self.features == NULL or self.group_starts == NULL or self.members == NULL
                or self.good == NULL or self.bad == NULL or self.scores == NULL):
            raise MemoryError
        place = 0
        for at, pattern in enumerate(patterns):
            self.starts[at] = place
            for feature in pattern:
                if not 0 <= feature < count:
                    raise ValueError(f"feature {feature} of {count}")
                self.features[place] = feature
                place += 1
        self.starts[self.patterns] = place
        place = 0
        for at, (members, good, bad) in enumerate(groups):
            self.group_starts[at] = place
            for member in members:
                if not 0 <= member < self.patterns:
                    raise ValueError(f"pattern {member} of {self.patterns}")
                self.members[place] = member
                place += 1
            self.good[at] = good
            self.bad[at] = bad
        self.group_starts[self.groups] = place

    def __dealloc__(self):
        free(self.starts)
        free(self.features)
        free(self.group_starts)
        free(self.members)
        free(self.good)
        free(self.bad)
        free(self.scores)

    def hit(self, weights, int64_t threshold):
        """See core.pyi."""
        cdef int64_t[1024] weight
        cdef int64_t good = 0, bad = 0
        cdef int at, place
        if len(weights) != self.count or self.count > 1024:
            raise ValueError(f"{len(weights)} weights instead of {self.count}")
        for at in range(self.count):
            weight[at] = weights[at]
        with nogil:
            for at in range(self.patterns):
                self.scores[at] = 0
                for place in range(self.starts[at], self.starts[at + 1]):
                    self.scores[at] += weight[self.features[place]]
            for at in range(self.groups):
                for place in range(self.group_starts[at], self.group_starts[at + 1]):
                    if self.scores[self.members[place]] >= threshold:
                        good += self.good[at]
                        bad += self.bad[at]
                        break
        return good, bad
