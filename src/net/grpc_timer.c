/* A wheel of timers: setting and stopping one costs nothing that grows with their number; they fire up to a tick late. */
#include "net/grpc_inside.h"

void lk__grpc_wheel_init(struct lk__grpc_wheel *w, uint64_t now_ns) {
    for (size_t i = 0; i < LK__GRPC_SLOTS; i++) w->slots[i].next = w->slots[i].prev = &w->slots[i];
    w->tick = now_ns / LK__GRPC_TICK_NS;
    w->count = 0;
}
void lk__grpc_timer_stop(struct lk__grpc_wheel *w, struct lk__grpc_timer *t) {
    if (!t->next) return;
    t->prev->next = t->next, t->next->prev = t->prev;
    t->next = t->prev = NULL;
    w->count--;
}
void lk__grpc_timer_set(struct lk__grpc_wheel *w, struct lk__grpc_timer *t, uint64_t until_ns) {
    lk__grpc_timer_stop(w, t);
    uint64_t tick = until_ns / LK__GRPC_TICK_NS + 1;
    if (tick <= w->tick) tick = w->tick + 1;
    struct lk__grpc_timer *head = &w->slots[tick % LK__GRPC_SLOTS];
    t->until_ns = until_ns;
    t->next = head->next, t->prev = head;
    head->next->prev = t, head->next = t;
    w->count++;
}
/* A slot holds those of later turns as well. A timer that fires may stop or set any. */
void lk__grpc_wheel_turn(struct lk__grpc_wheel *w, uint64_t now_ns) {
    uint64_t now = now_ns / LK__GRPC_TICK_NS, from = w->tick;
    if (now > from + LK__GRPC_SLOTS) from = now - LK__GRPC_SLOTS;
    w->tick = now;
    for (uint64_t tick = from + 1; tick <= now; tick++) {
        struct lk__grpc_timer *head = &w->slots[tick % LK__GRPC_SLOTS], due = {.next = &due, .prev = &due};
        if (head->next == head) continue;
        due.next = head->next, due.prev = head->prev;
        due.next->prev = due.prev->next = &due;
        head->next = head->prev = head;
        while (due.next != &due) {
            struct lk__grpc_timer *t = due.next;
            if (t->until_ns <= now_ns)
                lk__grpc_timer_stop(w, t), t->fire(t, now_ns);
            else
                lk__grpc_timer_set(w, t, t->until_ns);
        }
    }
}
int lk__grpc_wheel_wait_ms(const struct lk__grpc_wheel *w, uint64_t now_ns) {
    if (!w->count) return -1;
    uint64_t now = now_ns / LK__GRPC_TICK_NS;
    for (uint64_t tick = w->tick + 1; tick < w->tick + LK__GRPC_SLOTS; tick++) {
        const struct lk__grpc_timer *head = &w->slots[tick % LK__GRPC_SLOTS];
        if (head->next != head)
            return tick <= now ? 0 : (int)((tick * LK__GRPC_TICK_NS - now_ns + LK__GRPC_MS - 1) / LK__GRPC_MS);
    }
    return (int)(LK__GRPC_SLOTS * LK__GRPC_TICK_NS / LK__GRPC_MS / 2);
}
