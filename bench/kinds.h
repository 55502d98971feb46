/* The kinds of clients: what each waits for and says. */

#define EHLO "EHLO bench.example.test\r\n"
#define NAMED "EHLO mail.provider-host.se\r\n"
#define MAIL "MAIL FROM:<sender@example.test>\r\n"
#define RCPT "RCPT TO:<recipient@example.test>\r\n"

static const char MESSAGE[] = ""; /* said after DATA: a message of the size that was asked for */

/* A line that begins with `line` moves the client on; it says `say`. Other lines are passed over. */
struct step {
    const char *line, *say;
};

/* `stays`: it does not wait for the end of its connection, it holds it. */
static const struct kind {
    const char *name, *at_once;
    int stays;
    struct step steps[8];
} kinds[] = {
    /* Says nothing, waits for the MTA's banner. */
    {"pass", NULL, 0, {{"220 ", NULL}}},
    /* Says EHLO at once, and is told that it may not. */
    {"pregreet", EHLO, 0, {{"521 ", NULL}}},
    /* Says each command when it is its turn. */
    {"deep", NULL, 0, {{"220 ", EHLO}, {"250 ", MAIL}, {"250 ", RCPT}, {"450 ", "QUIT\r\n"}, {"221 ", NULL}}},
    /* The same, with a name that gives no evidence for the score. */
    {"named", NULL, 0, {{"220 ", NAMED}, {"250 ", MAIL}, {"250 ", RCPT}, {"450 ", "QUIT\r\n"}, {"221 ", NULL}}},
    /* Waits for the MTA's banner, and says that this was all. */
    {"quit", NULL, 0, {{"220 ", "QUIT\r\n"}, {"221 ", NULL}}},
    /* Sends messages. */
    {"message", NULL, 0, {{"220 ", EHLO}, {"250 ", MAIL}, {"250 ", RCPT}, {"250 ", "DATA\r\n"}, {"354 ", MESSAGE},
                          {"250 ", "QUIT\r\n"}, {"221 ", NULL}}},
    /* Holds once it has the teaser. */
    {"silent", NULL, 1, {{"220-", NULL}}},
    /* Holds in the middle of a dialogue. */
    {"talking", NULL, 1, {{"220 ", EHLO}, {"250 ", MAIL}, {"250 ", NULL}}},
    /* Says EHLO at once and holds when that is answered, which is after the greet wait. */
    {"early", EHLO, 1, {{"250 ", NULL}}},
};
