//! What happens in each step, besides the work of a node.

use std::sync::Arc;

use gitorial_relay::control::Join;
use gitorial_relay::room::Input;
use gitorial_relay::stored::Committed;

use super::marks::Mark;
use super::names::{asks_for, name, socket, state};
use super::node::{NOBODY, Stage};
use super::scene::Wish;
use super::world::{Pending, Step};

impl Stage<'_> {
    pub fn take(&mut self, step: Step) {
        match step {
            Step::Time => self.tick(),
            Step::Renew(node) => {
                self.world.left.renewals -= 1;
                self.world.nodes[node].renewing = Some(self.world.now);
            }
            Step::Renewed(node) => {
                if let Some(began) = self.world.nodes[node].renewing.take() {
                    self.renewed(node, began);
                }
            }
            Step::Watch(node) => self.watch(node),
            Step::Hear(node) => self.hear(node),
            Step::Work(node) if self.scene.is_steady(node) => self.settle(node),
            Step::Work(node) => self.work(node),
            Step::LoseAnswer(node, again) => self.lose_answer(node, again),
            Step::Land => {
                if let Some(write) = self.world.late.take()
                    && let Committed::Done { .. } = self.land(&write)
                {
                    self.marks.note(Mark::LandedLate);
                }
            }
            Step::Wish(node, client, wish) => self.wish(node, client, wish),
            Step::Pass(node) => self.pass(node),
            Step::Arrive(index) => self.arrive(index),
            Step::Pong(node) => {
                let (connection, number) = self.world.nodes[node].probes.remove(0);
                self.give(node, Input::Pong { connection, number });
            }
            Step::Break(node, client) => self.cut(node, client),
            Step::Return(node, client) => self.come_back(node, client),
            Step::Crash(node) => self.crash(node),
            Step::Delete(node) => {
                self.world.left.deletes -= 1;
                self.give(node, Input::Delete { ticket: NOBODY });
            }
            Step::Forget => {
                self.world.left.memory_losses -= 1;
                self.lose_time();
                self.world.store.forget(self.world.now);
            }
            Step::FailOver => {
                self.world.left.fail_overs -= 1;
                self.lose_time();
                self.world.store.fail_over(self.world.now);
                self.marks.note(Mark::FailedOver);
            }
        }
    }

    fn tick(&mut self) {
        self.lose_time();
        for node in (0..self.world.nodes.len()).filter(|node| self.scene.is_steady(*node)) {
            if self.world.nodes[node].alive {
                self.renewed(node, self.world.now);
            }
        }
    }

    /// A tick passes. The clock of a server that takes over, or comes back empty, is later than all that was lost.
    fn lose_time(&mut self) {
        self.world.left.ticks -= 1;
        self.world.now += 1;
    }

    fn hear(&mut self, node: usize) {
        let due = self.world.nodes[node].room.is_stale();
        self.give(node, if due { Input::Tick } else { Input::Reload });
    }

    fn wish(&mut self, node: usize, client: u8, wish: Wish) {
        let here = &self.world.nodes[node];
        let (Some(connection), Some(view)) = (here.socket_of(name(client).as_str()), here.room.view()) else { return };
        let modern = self.scene.clients[usize::from(client)].1;
        // Every state of a wish has a content of its own, so that none of them is an answer.
        let frame = asks_for(wish, modern, &view.session, 100 + self.world.left.wishes);
        self.world.left.wishes -= 1;
        self.give(node, Input::Frame { connection, frame });
    }

    fn pass(&mut self, node: usize) {
        let Some(driver) = self.check.passing(&self.world, node) else { return };
        let frame = state(self.world.left.states);
        self.world.left.states -= 1;
        self.kept = Some(true);
        self.give(node, Input::Frame { connection: driver.connection, frame });
    }

    fn cut(&mut self, node: usize, client: u8) {
        let here = &mut self.world.nodes[node];
        let Some(connection) = here.socket_of(name(client).as_str()) else { return };
        here.closed.push(connection);
        self.world.left.breaks -= 1;
        self.gone(client);
        self.give(node, Input::Leave { connection, lost: true, ticket: NOBODY });
    }

    /// A client without a socket may come back.
    pub fn gone(&mut self, client: u8) {
        if self.scene.clients[usize::from(client)].1 && self.world.left.returns > 0 {
            self.world.away.push(client);
            self.world.away.sort_unstable();
        }
    }

    fn come_back(&mut self, node: usize, client: u8) {
        self.world.left.returns -= 1;
        self.world.away.retain(|away| *away != client);
        let connection = socket(client, self.world.left.returns + 1);
        let resume = self.check.token(client);
        let join = Join { connection, wants: Some(name(client)), otherwise: name(client), asked_at: 0, resume };
        self.give(node, Input::Join { join, socket: connection, ticket: client });
    }

    fn crash(&mut self, node: usize) {
        self.world.left.crashes -= 1;
        let here = &mut self.world.nodes[node];
        let open: Vec<String> = here.open().map(|member| member.client.id.as_str().to_owned()).collect();
        let pending = std::mem::replace(&mut here.pending, Pending::Nothing);
        here.end();
        // A frame that it had sent may still arrive.
        if let Pending::Commit(write) = pending {
            self.world.late.get_or_insert(Arc::clone(&write));
        }
        let clients = 0..u8::try_from(self.scene.clients.len()).unwrap();
        for client in clients.filter(|client| open.iter().any(|id| id == name(*client).as_str())) {
            self.gone(client);
        }
    }
}
