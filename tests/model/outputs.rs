//! The outputs of a room, as far as the model performs them.

use gitorial_relay::ids::{ConnectionId, Epoch, NodeId};
use gitorial_relay::protocol::FrameType;
use gitorial_relay::room::{Counted, Output, Outputs, Reply, Request};
use gitorial_relay::route::{Body, Kind, RoutedFrame};
use gitorial_relay::session::Activity;

/// An output, to be performed after the step.
pub enum Act {
    Ask(Box<Request>),
    Touch(Activity),
    Publish(NodeId, RoutedFrame),
    /// A state of this epoch is shown to a client.
    Show(Epoch),
    /// A client learns that another one has control.
    Accepted(ConnectionId),
    Close(ConnectionId),
    Probe(ConnectionId, u64),
    /// A client may not join.
    Refused(u8),
    Dropped,
}

/// The outputs of one step, in order.
#[derive(Default)]
pub struct Acts(pub Vec<Act>);

impl Outputs<ConnectionId, u8> for Acts {
    fn put(&mut self, output: Output<'_, ConnectionId, u8>) {
        self.0.push(match output {
            Output::Ask(request) => Act::Ask(request),
            Output::Touch(activity, _) => Act::Touch(activity),
            // News of a change may come at any time or never: `Step::Hear`.
            Output::Publish(to, Body::Frame(frame)) if frame.route.kind == Kind::State => {
                Act::Publish(to.clone(), frame)
            }
            Output::Send(socket, item) => match (item.kind, item.state_of) {
                (FrameType::AcceptControl, _) => Act::Accepted(*socket),
                (_, Some((_, epoch))) => Act::Show(epoch),
                _ => return,
            },
            Output::Close(socket, _) => Act::Close(*socket),
            Output::Probe(socket, number) => Act::Probe(*socket, number),
            Output::Reply(client, Reply::Unavailable | Reply::Closed(_) | Reply::Missing) => Act::Refused(client),
            Output::Count(Counted::Dropped) => Act::Dropped,
            Output::Publish(..) | Output::HoldAfterLeave(_) | Output::HoldNothing(_) | Output::Decided(_) => return,
            Output::Reply(..) | Output::Emit(_) | Output::Count(_) | Output::Undecided { .. } => return,
        });
    }

    /// Clients read at once, so no frame waits.
    fn withdraw(&mut self, _: &ConnectionId, _: FrameType) -> usize {
        0
    }
}
